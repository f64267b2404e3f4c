"""Tables of a server's benchmark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from ventris.bench.serving.load import LoadRun
from ventris.bench.serving.measure import ServingReport


def print_serving(report: ServingReport, console: Console) -> None:
    """Medians of every load, and the ratios between them."""
    groups: dict[tuple[str, int, str], list[LoadRun]] = defaultdict(list)
    for run in report.loads:
        groups[run.server, run.streams, run.draft].append(run)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in (
        "server",
        "at a time",
        "draft",
        "tokens/s",
        "first token p50",
        "p95",
        "ms a token p50",
        "p95",
    ):
        table.add_column(column, justify="left" if column in ("server", "draft") else "right")
    for (server, streams, draft), runs in sorted(groups.items()):
        firsts = [second for run in runs for second in run.first_seconds]
        each = [second for run in runs for second in run.token_seconds]
        table.add_row(
            server,
            str(streams),
            draft,
            f"{median(run.rate for run in runs):.1f}",
            *(f"{_quantile(firsts, share):.3f} s" for share in (0.5, 0.95)),
            *(f"{1000 * _quantile(each, share):.1f}" for share in (0.5, 0.95)),
        )
    console.print(table)
    console.print()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("ratio", "median", "95 %", "promised"):
        table.add_column(column, justify="left" if column == "ratio" else "right")
    for ratio in report.ratios:
        interval = "-" if ratio.low is None or ratio.high is None else f"{ratio.low:.2f} to {ratio.high:.2f}"
        table.add_row(ratio.title, f"{ratio.value:.2f}", interval, ratio.promise)
    console.print(table)


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else float("nan")
