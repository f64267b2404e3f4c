"""``ventris study``: how often, where and when small models need a large one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ventris.cli.bench_progress import bench_progress
from ventris.cli.command_options import with_options
from ventris.cli.option_fields import option_fields
from ventris.cli.streams import console, error_console
from ventris.study.settings import StudySettings, read_settings

if TYPE_CHECKING:
    from ventris.study.record import StudyReport

SEVERAL = ("methods", "categories")
"""Options that may be repeated, or hold several values with commas between them."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    fields = tuple(option_fields(StudySettings, lambda key: "Study"))
    app.command("study")(with_options(study, "settings", fields, (), _read))


def study(
    settings: StudySettings,
    as_json: Annotated[bool, typer.Option("--json", help="print the whole report as JSON")] = False,
) -> None:
    """Study small models beside a large one: how often, where and when it is needed, and who could tell.

    Every token is noted at which a small model alone would have written another one than both together. From
    that come the frequency with its interval, profiles by place and by uncertainty, routers judged on answers
    held out and decoded with, and the law by size with an honest R².
    """
    from ventris.study.files import to_json, write_study
    from ventris.study.run import run_study

    with bench_progress() as progress:
        found = run_study(settings, progress)
    if settings.out is not None:
        write_study(found, settings.out)
        error_console().print(f"the report is in {settings.out}", style="dim", markup=False, soft_wrap=True)
    if as_json:
        print(to_json(found.report))
    else:
        _print(found.report)


def _print(report: StudyReport) -> None:
    from ventris.study.law import LawFound
    from ventris.study.page import headline, percent

    out = console()
    for warning in report.warnings:
        out.print(Text(f"warning: {warning}", style="yellow"))
    out.print(Text(headline(report), style="bold"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("small model")
    table.add_column("method")
    for heading in ("times smaller", "frequency", "first tenth", "after it", "passes"):
        table.add_column(heading, justify="right")
    for pair in report.pairs:
        found = pair.profile
        shares = (percent(value) for value in (found.frequency, found.first_tenth, found.rest, found.passes))
        table.add_row(Text(pair.small), pair.method, f"{pair.ratio:.3g}", *shares)
    out.print(table)
    for pair in report.pairs:
        if pair.method != "oracle":
            said = f"likeness {pair.likeness:.1f} to the large model's own text, {pair.nats:.3f} nats a token"
            out.print(Text(f"{pair.method} with {pair.small}: {said}"))
    for method, law in report.laws.items():
        if isinstance(law, LawFound):
            predicted = "" if law.left_out is None else f", {law.left_out:.2f} on ratios left out"
            said = (
                f"frequency = -{law.law.a:.3g} R^-{law.law.alpha:.3g} + {law.law.b:.3g}, "
                f"R² {law.r_squared:.2f}{predicted}"
            )
        else:
            said = law
        out.print(Text(f"law, {method}: {said}"))
    _print_routers(report, out)


def _print_routers(report: StudyReport, out: Console) -> None:
    from ventris.study.page import call_from, percent, plain

    if isinstance(report.routers, str):
        out.print(Text(f"routers: {report.routers}"))
        return
    for router in report.routers:
        cut = next(cut for cut in router.cuts if cut.wanted == 0.9)
        out.print(
            Text(
                f"router {router.name}: area {router.area.value:.3f}; made to catch 90 %, it catches "
                f"{percent(cut.caught)} of the needed tokens by calling at {percent(cut.calls)}"
            )
        )
    for run in report.routed.runs if report.routed is not None else ():
        where = "" if run.score is None else f" from {call_from(run.router, run.score)}"
        out.print(
            Text(
                f"decoding with {run.router}{where}: {plain(run.found.rate)} called, "
                f"{plain(run.found.closed)} of the gap closed; "
                f"random calls ({plain(run.random.rate)}): {plain(run.random.closed)}"
            )
        )


def _read(given: Mapping[str, Any]) -> StudySettings:
    split = {
        key: [part.strip() for value in given[key] for part in value.split(",") if part.strip()]
        for key in SEVERAL
        if key in given
    }
    return read_settings({**given, **split})
