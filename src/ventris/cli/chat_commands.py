"""What can be typed in a chat besides messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from ventris.cli.answer import stats_line
from ventris.cli.progress import phases
from ventris.cli.streams import error_console
from ventris.engine.errors import BadInput
from ventris.models.cache_folder import written_whole

if TYPE_CHECKING:
    from ventris.engine.request import Completion
    from ventris.model import Chat


class ChatCommands:
    """Runs the lines that begin with a slash.

    Attributes:
        last: The latest answer, for ``/stats``.
        left: Whether the conversation is over; ``/quit`` says so.
    """

    def __init__(self, chat: Chat, model_name: str) -> None:
        self.chat = chat
        self.model_name = model_name
        self.last: Completion | None = None
        self.left = False
        self._known: dict[str, tuple[str, str, Callable[[str], None]]] = {
            "/reset": ("", "forget the conversation, keep the system message", self._reset),
            "/system": ("TEXT", "set the system message; without a text, take it away", self._system),
            "/stats": ("", "speed, acceptance and guarantee of the last answer", self._stats),
            "/draft": ("SPEC", "switch the drafter, such as ngram:width=2; none for no drafts", self._draft),
            "/save": ("FILE.json", "write the conversation to a file", self._save),
            "/help": ("", "show this list", self._help),
            "/quit": ("", "leave", self._quit),
        }

    def run(self, line: str) -> None:
        """Run one command.

        Raises:
            BadInput: if there is none of this name, or its argument cannot be used.
        """
        name, _, argument = line.strip().partition(" ")
        if name not in self._known:
            near = get_close_matches(name, self._known, 1)
            hint = f"did you mean {near[0]}?" if near else "/help lists them"
            raise BadInput(f"there is no command {name!r}; {hint}")
        self._known[name][2](argument.strip())

    def _reset(self, argument: str) -> None:
        self.chat.reset()
        _say("the conversation is forgotten")

    def _system(self, text: str) -> None:
        said = [message for message in self.chat.messages if message["role"] != "system"]
        self.chat.messages = [{"role": "system", "content": text}, *said] if text else said
        _say("the system message is set" if text else "there is no system message now")

    def _stats(self, argument: str) -> None:
        if self.last is None:
            raise BadInput("no answer has been finished yet")
        stats = self.last.stats
        _say(stats_line(self.last))
        _say(f"{stats.prompt_tokens} prompt tokens, {stats.reused_tokens} of them from the cache")
        _say(f"first token after {stats.first_token_seconds:.2f} s, all after {stats.total_seconds:.2f} s")
        if stats.acceptance:
            _say("accepted by depth: " + " ".join(f"{share:.0%}" for share in stats.acceptance))
        if self.last.guarantee is not None:
            _say(self.last.guarantee.statement)

    def _draft(self, spec: str) -> None:
        if not spec:
            raise BadInput("write /draft NAME, such as /draft ngram, or /draft none")
        before = self.chat.settings.get("draft")
        self.chat.settings["draft"] = spec
        try:
            with phases("preparing the drafter"):
                # Made here and kept, so that a wrong name or a missing model shows now.
                self.chat.model.request("x", **self.chat.settings).check()
        except Exception:
            self.chat.settings["draft"] = before
            raise
        _say("no drafts from now on" if spec == "none" else f"drafting with {spec}")

    def _save(self, argument: str) -> None:
        if not argument:
            raise BadInput("write /save FILE.json")
        content = {"model": self.model_name, "messages": self.chat.messages}
        path = Path(argument).expanduser()
        try:
            with written_whole(path) as temporary:
                temporary.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")
        except OSError as error:
            raise BadInput(f"cannot write {path}: {error.strerror}") from None
        _say(f"saved {len(self.chat.messages)} messages in {path}")

    def _help(self, argument: str) -> None:
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, (argument_name, meaning, _) in self._known.items():
            table.add_row(f"[bold]{name}[/bold] {argument_name}", meaning)
        error_console().print(table)

    def _quit(self, argument: str) -> None:
        self.left = True


def _say(text: str) -> None:
    error_console().print(text, style="dim", markup=False, soft_wrap=True)
