"""Figures as words, the same in every table."""

from __future__ import annotations

from ventris.bench.record import Report
from ventris.bench.statistics import Ratio
from ventris.bench.summary import OVERALL, Cell, Summary

TIMES = "\u00d7"
DASH = "\u2013"
"""Between the ends of an interval, and where there is no figure."""


def ratio(value: Ratio | None) -> str:
    """A ratio with its interval. One whose interval covers 1 is no finding, so no figure stands first."""
    if value is None:
        return DASH
    if value.low is None or value.high is None:
        return f"{value.median:.2f}{TIMES} (too few runs)"
    interval = f"{value.low:.2f}{DASH}{value.high:.2f}"
    if value.verdict == "no difference":
        return f"no difference ({interval})"
    return f"{value.median:.2f}{TIMES} ({interval})"


def speed(value: float | None) -> str:
    """Tokens a second."""
    if value is None:
        return DASH
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def share(value: float | None) -> str:
    """A share in per cent."""
    return DASH if value is None else f"{100 * value:.1f} %"


def milliseconds(seconds: float) -> str:
    """A time in milliseconds."""
    return f"{1000 * seconds:.1f} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"


def megabytes(value: int | None) -> str:
    """A size in megabytes."""
    return DASH if value is None else f"{value / 1e6:.0f} MB"


def bandwidth(value: float | None) -> str:
    """Gigabytes a second."""
    return DASH if value is None else f"{value / 1e9:.1f} GB/s"


def tokens_per_pass(value: float | None) -> str:
    """Tokens per target pass."""
    return DASH if value is None else f"{value:.2f}"


def identical(cell: Cell) -> str:
    """Share of identical outputs, with the differences by kind."""
    if cell.identical is None:
        return DASH
    text = f"{100 * cell.identical:.0f} %"
    return f"{text} ({cell.near_ties} near-ties)" if cell.near_ties else text


def headline(report: Report, summary: Summary) -> str:
    """The report in one sentence."""
    environment = report.environment
    rows = [(entrant, summary.cells[entrant.name, OVERALL]) for entrant in summary.entrants]
    methods = [
        (entrant, cell) for entrant, cell in rows if entrant.kind == "method" and cell.tokens_per_second
    ]
    if not methods:
        return "Nothing was decoded that is long enough to be timed."
    plain = methods[0][1].tokens_per_second
    text = f"Plain decoding reaches {speed(plain)} tokens/s ({environment.runtime}, {environment.dtype})"
    faster = [
        (cell.speedup.median, entrant.name)
        for entrant, cell in methods
        if cell.speedup is not None and cell.speedup.verdict == "faster"
    ]
    if faster:
        best, name = max(faster)
        return f"{text}; {name} decodes {best:.2f} times as fast."
    if len(methods) > 1:
        return f"{text}; no method was found to be faster."
    return f"{text}."
