"""The process's own streams: what may be printed, what is read, and where it goes."""

from __future__ import annotations

import io
import os
import sys

from rich.console import Console

from ventris.engine.errors import BadInput

PIPE_WIDTH = 200

_CONTROL = {code: None for code in (*range(32), 127, *range(128, 160)) if chr(code) not in "\n\t"}


def prepare_streams() -> None:
    """Make printing safe: a closed stream takes anything, and no character ends the program."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # open until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def discard_output() -> None:
    """Nobody reads stdout any more; let the interpreter's last flush go nowhere."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # open until the process ends


def console() -> Console:
    """For tables on stdout; in a pipe they are wide, so that nothing that a program looks for is cut off."""
    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def error_console() -> Console:
    """For everything that is not the result."""
    return Console(stderr=True, highlight=False, emoji=False)


def write_text(text: str) -> None:
    """Print a piece of an answer now and as it is, but let no answer steer the terminal."""
    sys.stdout.write(text.translate(_CONTROL) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def read_stdin() -> str:
    """All of stdin.

    Raises:
        BadInput: if it is no UTF-8.
    """
    binary = getattr(sys.stdin, "buffer", None)
    try:
        return sys.stdin.read() if binary is None else binary.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"stdin is no UTF-8 text: {error.reason} at byte {error.start}") from None
