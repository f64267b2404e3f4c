"""From the outcomes of hostile input to tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ventris.bench.structured import words
from ventris.bench.structured.hostile import LIMITS, Ending, Outcome
from ventris.bench.structured.mask_findings import keyword_of
from ventris.bench.structured.record import Findings, Table

ENDINGS: tuple[Ending, ...] = ("accepted", "refused", "guide stopped", "timeout", "memory", "crash", "error")


def hostile_findings(outcomes: Sequence[Outcome], peak_bytes: int | None) -> Findings:
    """How hostile input ended, how long it took, and the highest memory."""
    kinds = list(dict.fromkeys(outcome.kind for outcome in outcomes))
    endings, times = [], []
    for kind in kinds:
        own = [outcome for outcome in outcomes if outcome.kind == kind]
        counts = Counter(outcome.ending for outcome in own)
        endings.append([kind, str(len(own)), *(str(counts[ending]) for ending in ENDINGS)])
        found = words.percentiles([outcome.seconds for outcome in own])
        times.append([kind, *(words.duration(seconds) for seconds in found.values())])
    bad = [outcome for outcome in outcomes if outcome.bad]
    refusals = (
        keyword_of(outcome.detail) for outcome in outcomes if outcome.ending in ("refused", "guide stopped")
    )
    limit = f"One compile may take {LIMITS.compile_seconds:g} s and {LIMITS.compile_bytes / 1e6:.0f} MB."
    tables = [
        Table(title="How hostile input ended", heads=["kind", "inputs", *ENDINGS], rows=endings, note=limit),
        Table(title="Times", heads=["kind", *(name for name, _ in words.QUANTILES), "max"], rows=times),
        words.counted("Refusals", "reason", refusals),
    ]
    if bad:
        rows = [[outcome.name, outcome.ending, outcome.detail[:160]] for outcome in bad]
        tables.append(
            Table(title="Not as it should be", heads=["input", "ending", "detail"], rows=rows, words=True)
        )
    slowest = max((outcome.seconds for outcome in outcomes), default=0.0)
    peak = f"{peak_bytes / 1e6:.0f} MB" if peak_bytes else "unknown"
    return Findings(
        headline=f"{len(outcomes)} hostile inputs: {len(bad)} ended in a crash, a hang, or an error; the "
        f"slowest took {words.duration(slowest)}; the worker with its compiler peaked at {peak}.",
        tables=[table for table in tables if table is not None],
        figures={
            "inputs": len(outcomes),
            "bad": [outcome.name for outcome in bad],
            "slowest_seconds": slowest,
            "peak_bytes": peak_bytes,
        },
    )
