"""What takes long is said on stderr: a moving bar on a terminal, a line for each phase elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ventris.cli.interrupts import raise_pending_interrupt
from ventris.cli.streams import error_console
from ventris.models.cache_folder import Progress


@contextmanager
def phases(first: str) -> Iterator[Progress]:
    """A callback to report phases with; they are shown until the block ends.

    Args:
        first: What is going on until the callback says otherwise; shown on a terminal only.

    Raises:
        KeyboardInterrupt: at the end, if one got lost on the way (imports swallow some).
    """
    with _terminal_phases(first) if sys.stderr.isatty() else _plain_phases() as report:
        yield report
    raise_pending_interrupt()


@contextmanager
def _terminal_phases(first: str) -> Iterator[Progress]:
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (
        SpinnerColumn(),
        TextColumn("[dim]{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
    )
    with RichProgress(*columns, console=error_console(), transient=True) as bar:
        task = bar.add_task(first, total=None)

        def report(message: str, fraction: float | None = None) -> None:
            shown = message.replace("[", r"\[")
            bar.update(task, description=shown, total=None if fraction is None else 1.0)
            if fraction is not None:
                bar.update(task, completed=fraction)

        with _warnings_as_lines():
            yield report


@contextmanager
def _plain_phases() -> Iterator[Progress]:
    said: set[str] = set()

    def report(message: str, fraction: float | None = None) -> None:
        if message not in said:
            said.add(message)
            print(f"ventris: {message}", file=sys.stderr)

    # Whatever is logged as a warning is reported as a phase too, so the log itself stays silent.
    with _log_handler(logging.NullHandler()):
        yield report


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Warnings stay on the screen, above the bar, which vanishes."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("ventris: %(message)s"))
    with _log_handler(handler):
        yield


@contextmanager
def _log_handler(handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger("ventris")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
