"""The report on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from ventris.bench.record import ForwardCost, Report
from ventris.bench.report import wording
from ventris.bench.summary import DEFINITIONS, OVERALL, Summary, summarize

if TYPE_CHECKING:
    from ventris.bench.claims import Claim


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the tables of a report and what their words mean."""
    shown = console or Console()
    summary = summarize(report)
    for warning in report.warnings:
        shown.print(f"[yellow]warning:[/] {warning}", highlight=False)
    if summary.entrants:
        shown.print(_speed(summary))
        shown.print(_cost(summary))
        if len(summary.categories) > 1:
            shown.print(_by_category(summary))
    if summary.batches:
        shown.print(_batches(summary))
    if report.forward_cost is not None:
        shown.print(_forward_cost(report.forward_cost))
    for entrant in report.entrants:
        if entrant.missing:
            shown.print(f"{entrant.name}: {entrant.missing}", style="dim", highlight=False)
    load = report.environment.load
    shown.print(
        f"{report.environment.cpu}, {report.environment.threads} threads, load {load.before} before and "
        f"{load.after} after; others used {load.other_cores} cores",
        style="dim",
        highlight=False,
    )
    for name in ("tokens/s", "speed-up", "tokens per pass", "identical"):
        shown.print(f"{name}: {DEFINITIONS[name]}", style="dim", highlight=False)
    shown.print(wording.headline(report, summary), style="bold", highlight=False)


def print_claims(claims: Sequence[Claim], console: Console | None = None) -> None:
    """Print the engine's promises, what was measured, and whether they hold."""
    table = terminal_table("The engine's promises", "promise", ("measured", "interval", "target", "aim", ""))
    colours = {"pass": "green", "miss": "red", "not measured": "dim"}
    for claim in claims:
        table.add_row(
            claim.title,
            claim.shown_value,
            claim.shown_interval,
            claim.shown_target,
            claim.shown_aim,
            f"[{colours[claim.verdict]}]{claim.verdict}[/]{' (uncertain)' if claim.uncertain else ''}",
        )
    shown = console or Console()
    shown.print(table)
    for claim in claims:
        if claim.note:
            shown.print(f"{claim.name}: {claim.note}", style="dim", highlight=False)


def _speed(summary: Summary) -> Table:
    peers = any(entrant.kind == "peer" for entrant in summary.entrants)
    columns = ["tokens/s", "speed-up", *(["against Ventris"] if peers else []), "per pass", "identical"]
    table = terminal_table("All prompts", "method", columns)
    for entrant in summary.entrants:
        cell = summary.cells[entrant.name, OVERALL]
        plain = entrant.plain == entrant.name
        row = [wording.speed(cell.tokens_per_second), "baseline" if plain else wording.ratio(cell.speedup)]
        if peers:
            row.append(wording.ratio(cell.against_ours))
        row += [wording.tokens_per_pass(cell.tokens_per_pass), wording.identical(cell)]
        table.add_row(entrant.name, *row)
    return table


def _cost(summary: Summary) -> Table:
    columns = ["first token", "outside target", "bandwidth", "memory"]
    table = terminal_table("What a step costs", "method", columns)
    for entrant in summary.entrants:
        cell = summary.cells[entrant.name, OVERALL]
        table.add_row(
            entrant.name,
            wording.milliseconds(cell.first_token_seconds),
            wording.share(cell.outside_target),
            wording.bandwidth(cell.bandwidth),
            wording.megabytes(cell.peak_growth),
        )
    return table


def _by_category(summary: Summary) -> Table:
    first = summary.entrants[0].name
    others = [entrant for entrant in summary.entrants if entrant.plain != entrant.name]
    names = [entrant.name for entrant in others]
    table = terminal_table("Speed-up by category", "category", [f"{first}\ntokens/s", *names])
    for category in summary.categories:
        cells = [summary.cells[name, category] for name in names]
        table.add_row(
            category,
            wording.speed(summary.cells[first, category].tokens_per_second),
            *(wording.ratio(cell.speedup) for cell in cells),
            style="bold" if category == OVERALL else None,
        )
    return table


def _batches(summary: Summary) -> Table:
    size = summary.batches[0].size
    columns = ["batch 1", f"batch {size}", "ratio"]
    table = terminal_table(f"Batch of {size} against batch 1, total tokens/s", "method", columns)
    for cell in summary.batches:
        ratio = wording.ratio(cell.ratio)
        table.add_row(cell.contestant, wording.speed(cell.alone), wording.speed(cell.together), ratio)
    return table


def _forward_cost(cost: ForwardCost) -> Table:
    ratio = f", T(8)/T(1) = {cost.eight_to_one:.2f}" if cost.eight_to_one else ""
    table = terminal_table(
        f"T(n), milliseconds of one forward over n nodes{ratio}", "n", map(str, cost.sizes)
    )
    shown = [1000 * seconds for seconds in cost.seconds]
    table.add_row("ms", *(f"{value:.0f}" if value >= 100 else f"{value:.1f}" for value in shown))
    return table


def terminal_table(title: str, first: str, columns: Iterable[str], words: bool = False) -> Table:
    """A table that fits a narrow terminal: names, then figures to the right, or words."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="left" if words else "right")
    return table
