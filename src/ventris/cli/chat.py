"""``ventris chat``: a conversation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from ventris.cli.answer import show_answer
from ventris.cli.chat_commands import ChatCommands
from ventris.cli.exits import DecodingFailed, exit_code_for
from ventris.cli.interrupts import take_interrupt
from ventris.cli.loading import load_for
from ventris.cli.settings import Asked, takes_settings
from ventris.cli.streams import error_console
from ventris.engine.errors import BadInput, VentrisError

if TYPE_CHECKING:
    from ventris.model import Model


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("chat")(takes_settings(chat))


def chat(asked: Asked) -> None:
    """Talk to a model. /help shows what can be done besides; Ctrl-C breaks an answer off, Ctrl-D leaves.

    Without a terminal every line of stdin is one message, and the first error ends the conversation.
    """
    if asked.options.logprobs is not None:
        raise BadInput("a chat prints no log-probabilities; use ventris generate --json")
    Conversation(load_for(asked), asked).run()


class Conversation:
    """Reads messages and commands until there are no more."""

    def __init__(self, model: Model, asked: Asked) -> None:
        system = {"system": asked.system} if asked.system is not None else {}
        self.chat = model.chat(**asked.settings, **system)
        self.commands = ChatCommands(self.chat, asked.model.model)
        self.interactive = sys.stdin.isatty()
        self.interrupted = False

    def run(self) -> None:
        """Talk until the end of the input or ``/quit``."""
        if self.interactive:
            _enable_line_editing()
            error_console().print("[dim]/help for commands, Ctrl-C to break off, Ctrl-D to leave[/dim]")
        while not self.commands.left:
            try:
                self._round()
            except KeyboardInterrupt:
                if not self.interactive:
                    raise
                # Said in the next round: a second Ctrl-C that comes meanwhile must not end the chat.
                self.interrupted = True

    def _round(self) -> None:
        if take_interrupt() or self.interrupted:
            error_console().print("[dim]interrupted[/dim]")
            self.interrupted = False
        try:
            line = self._read()
            if line is None:
                self.commands.left = True
            elif line.strip():
                self._turn(line)
        except (VentrisError, DecodingFailed) as error:
            if not self.interactive:
                raise
            exit_code_for(error)

    def _read(self) -> str | None:
        """The next line, ``None`` at the end of the input."""
        if not self.interactive:
            line = sys.stdin.readline()
            return line.rstrip("\n") if line else None
        try:
            return input("> ")
        except EOFError:
            print()
            return None

    def _turn(self, line: str) -> None:
        if line.startswith("/"):
            self.commands.run(line)
        else:
            self.commands.last = show_answer(self.chat.stream(line))


def _enable_line_editing() -> None:
    try:
        import readline
    except ImportError:
        return
    readline.parse_and_bind("set enable-bracketed-paste on")
