"""The progress bar of a benchmark, on stderr so that stdout stays clean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ventris.bench.race import Progress as Told


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Told]:
    """A function for ``run_bench(progress=...)``; the bar is gone when the block ends."""
    shown = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=shown, transient=True, refresh_per_second=2) as bar:
        task = bar.add_task("loading", total=None)

        def told(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield told
