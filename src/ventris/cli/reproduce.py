"""``ventris reproduce``: a paper's central claim, measured here."""

from __future__ import annotations

import inspect
from pkgutil import resolve_name
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table
from rich.text import Text

from ventris.cli.answer_json import print_json
from ventris.cli.progress import phases
from ventris.cli.streams import console
from ventris.engine.errors import BadInput
from ventris.papers import Reproduction
from ventris.papers import paper as find_paper
from ventris.papers import reproduce as run_reproduction
from ventris.papers.reproduction_table import REPRODUCTIONS


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reproduce")(reproduce)


def reproduce(
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="which paper; ventris papers lists them")],
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="setting of this reproduction; repeatable")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Measure a paper's central claim on this machine, beside the figure that the paper states."""
    options = dict(_read_option(item) for item in option or ())
    if find_paper(slug).state == "works":
        _refuse_unknown(slug, options)
    with phases(f"reproducing {slug}"):
        result = run_reproduction(slug, **options)
    if as_json:
        print_json(result.to_dict())
    else:
        _print(result)


def _read_option(item: str) -> tuple[str, Any]:
    key, equals, value = item.partition("=")
    if not equals or not key.strip().isidentifier():
        raise BadInput(f"--option is {item!r}; write KEY=VALUE")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        return key.strip(), value


def _refuse_unknown(slug: str, options: dict[str, Any]) -> None:
    parameters = inspect.signature(resolve_name(REPRODUCTIONS[slug])).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    unknown = [key for key in options if key not in parameters]
    if unknown:
        raise BadInput(
            f"the reproduction of {slug} has no option {unknown[0]!r}; "
            f"it has: {', '.join(parameters) or 'none'}"
        )


def _print(result: Reproduction) -> None:
    entry = find_paper(result.slug)
    out = console()
    out.print(Text(entry.title, style="bold"))
    out.print(Text(f"paper: {result.paper_figure}"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("measured here")
    for heading in ("value", "baseline", "ratio"):
        table.add_column(heading, justify="right")
    for row in result.ours:
        known = row.baseline is not None
        baseline = f"{row.baseline:.4g} {row.unit}" if known else ""
        ratio = f"{row.value / row.baseline:.3g}x" if row.baseline else ""
        error = "" if row.error is None else f" ± {row.error:.2g}"
        table.add_row(Text(row.name), Text(f"{row.value:.4g}{error} {row.unit}"), Text(baseline), ratio)
    out.print(table)
    for note in result.notes:
        out.print(Text(f"· {note}", style="dim"))
    out.print(f"[dim]{result.seconds:.0f} s[/dim]")
