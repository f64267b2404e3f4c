"""How a command ends: one line on stderr and an exit code.

0 for success, 1 when decoding failed or memory ran out, 2 for bad input, 70 for a bug, 130 after Ctrl-C,
141 when the reader of stdout is gone.
"""

from __future__ import annotations

import os
import sys
import traceback

import typer

from ventris.cli.interrupts import INTERRUPTED, take_interrupt
from ventris.cli.streams import discard_output
from ventris.engine.errors import BrokenModel, StageLost, VentrisError

FAILED = 1
BAD_INPUT = 2
BUG = 70
READER_GONE = 141


class DecodingFailed(Exception):
    """The input was fine, but the generation could not be finished."""


def exit_code_for(error: BaseException) -> int:
    """Say what happened, and return the exit code that belongs to it."""
    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if isinstance(error, BrokenPipeError):
        discard_output()
        return READER_GONE
    if take_interrupt() or isinstance(error, KeyboardInterrupt | typer.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if os.environ.get("VENTRIS_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    code, message = _verdict(error)
    say_error(message)
    return code


def say_error(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    print(f"ventris: error: {' '.join(message.split())}", file=sys.stderr)


def _verdict(error: BaseException) -> tuple[int, str]:
    if isinstance(error, DecodingFailed | BrokenModel | StageLost):
        return FAILED, str(error)
    if isinstance(error, VentrisError):
        return BAD_INPUT, str(error)
    if _out_of_memory(error):
        return FAILED, f"not enough memory: {error or 'an allocation failed'}"
    if (usage := _usage_error(error)) is not None:
        return BAD_INPUT, usage
    from ventris.papers import NotYetBuilt, UnknownPaper

    if isinstance(error, UnknownPaper | NotYetBuilt):
        return BAD_INPUT, str(error)
    return BUG, (
        f"this is a bug in ventris: {type(error).__name__}: {error} (VENTRIS_DEBUG=1 shows the traceback)"
    )


def _out_of_memory(error: BaseException) -> bool:
    # torch reports a failed allocation as a RuntimeError; importing torch to ask for its class costs seconds.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error))
    )


def _usage_error(error: BaseException) -> str | None:
    """The message of a wrong command line; the class has moved between releases of typer."""
    describe = getattr(error, "format_message", None)
    if describe is None:
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "ventris"
    return f"{str(describe()).rstrip('.')} (see {command} --help)"
