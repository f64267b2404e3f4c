"""How far a benchmark is, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ventris.cli.streams import error_console


@contextmanager
def bench_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Told by benchmarks how far they are: a bar on a terminal, a line for every tenth elsewhere."""
    if sys.stderr.isatty():
        from ventris.bench import progress_bar

        with progress_bar(error_console()) as told:
            yield told
    else:
        yield _TenthsAsLines()


class _TenthsAsLines:
    """A line for every tenth of the work, for logs."""

    def __init__(self) -> None:
        self.said: tuple[int, int] | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        tenth = (total, 10 * done // total if total else 0)
        if tenth != self.said:
            self.said = tenth
            print(f"ventris: {what} ({done} of {total})", file=sys.stderr)
