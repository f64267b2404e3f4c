"""A streamed answer on stdout, and the line about it on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from rich.text import Text

from ventris.cli.exits import DecodingFailed
from ventris.cli.interrupts import raise_pending_interrupt
from ventris.cli.streams import error_console, write_text
from ventris.engine.errors import VentrisError

if TYPE_CHECKING:
    from collections.abc import Generator

    from ventris.engine.request import Completion, Stats
    from ventris.model import Piece


def show_answer(pieces: Iterator[Piece], silent: bool = False) -> Completion:
    """Print an answer as it comes and return what it came to.

    Args:
        silent: Only wait for the end.

    Raises:
        DecodingFailed: if the decoding broke off.
        KeyboardInterrupt: after the line that was begun has been ended.
    """
    stream: Generator[Piece] = pieces  # type: ignore[assignment]  # closing it frees the request's memory
    completion: Completion | None = None
    text = ""
    try:
        with closing(stream):
            for piece in stream:
                raise_pending_interrupt()
                completion = piece.completion
                if piece.text and not silent:
                    text = piece.text
                    write_text(text)
    except VentrisError as error:
        raise DecodingFailed(str(error)) from error
    finally:
        # Also after Ctrl-C and errors: whatever is said next starts on a line of its own.
        if (text or completion is not None) and not silent and not text.endswith("\n"):
            write_text("\n")
    if completion is None:
        raise DecodingFailed("the generation ended without a result")
    return completion


def show_stats(completion: Completion) -> None:
    """One dim line about an answer."""
    error_console().print(Text(stats_line(completion), style="dim"), soft_wrap=True)


def stats_line(completion: Completion) -> str:
    """Tokens, speed, tokens a pass, acceptance and guarantee of an answer."""
    stats = completion.stats
    said = [f"{stats.new_tokens} token{'' if stats.new_tokens == 1 else 's'}"]
    if stats.tokens_per_second:
        said.append(f"{stats.tokens_per_second:.1f} tok/s")
    if stats.drafted:
        said.append(f"{stats.tokens_per_step:.2f} tokens per pass")
        said.append(f"{mean_acceptance(stats):.0%} of drafts accepted")
    if completion.guarantee is not None:
        said.append("exact" if completion.guarantee.exact else "approximate")
    if completion.finish_reason == "length":
        said.append("cut at the token limit")
    return " · ".join(said)


def mean_acceptance(stats: Stats) -> float:
    """Share of the judged drafts that were kept, over all depths."""
    judged = sum(stats.proposed_by_depth)
    return sum(stats.accepted_by_depth) / judged if judged else 0.0


def stderr_is_terminal() -> bool:
    """Whether somebody watches: without a wish, statistics are for people only."""
    return sys.stderr.isatty()
