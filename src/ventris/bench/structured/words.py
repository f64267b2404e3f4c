"""Figures of the structured benchmark as words, the same in every table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median, quantiles

from ventris.bench.report.wording import DASH
from ventris.bench.statistics import interval
from ventris.bench.structured.record import Table

QUANTILES = (("p25", 0.25), ("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The quantiles of :data:`QUANTILES`, with ``max``; empty for fewer than two values."""
    if len(values) < 2:
        return {}
    cuts = quantiles(values, n=1000, method="inclusive")
    return {**{name: cuts[round(share * 1000) - 1] for name, share in QUANTILES}, "max": max(values)}


def duration(seconds: float) -> str:
    """A time with three digits in the unit that suits it."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            value = seconds * factor
            return (
                f"{value:.2f} {unit}"
                if value < 10
                else f"{value:.1f} {unit}"
                if value < 100
                else f"{value:.0f} {unit}"
            )
    return DASH


def share(part: int, whole: int) -> str:
    """``part`` of ``whole`` in per cent, never rounded up to all of it."""
    if not whole:
        return DASH
    shown = f"{100 * part / whole:.1f} %"
    return "99.9 %" if shown == "100.0 %" and part < whole else shown


def share_interval(flags: Sequence[bool], seed: int) -> str:
    """A share with its bootstrap interval."""
    if not flags:
        return DASH
    text = share(sum(flags), len(flags))
    found = interval([float(flag) for flag in flags], "mean", seed)
    return text if found is None else f"{text} ({100 * found[0]:.0f}{DASH}{100 * found[1]:.0f})"


def median_interval(seconds: Sequence[float], seed: int) -> str:
    """A median time with its bootstrap interval."""
    if not seconds:
        return DASH
    found = interval(seconds, "median", seed)
    text = duration(median(seconds))
    return text if found is None else f"{text} ({duration(found[0])} {DASH} {duration(found[1])})"


def counted(title: str, head: str, names: Iterable[str], most: int = 25) -> Table | None:
    """How often each name occurs, the most frequent first; ``None`` if there is none."""
    counts = Counter(names)
    if not counts:
        return None
    rows = [[name, str(count)] for name, count in counts.most_common(most)]
    left = len(counts) - len(rows)
    return Table(title=title, heads=[head, "schemas"], rows=rows, note=f"and {left} more" if left else "")
