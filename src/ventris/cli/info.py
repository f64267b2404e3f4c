"""``ventris info``: the machine, the model, and what a forward costs here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from ventris.cli.answer_json import print_json
from ventris.cli.loading import load_model
from ventris.cli.machine_facts import cache_facts, machine_facts
from ventris.cli.model_facts import model_facts
from ventris.cli.progress import phases
from ventris.cli.settings import ModelOptions, takes_model_options
from ventris.cli.streams import console

if TYPE_CHECKING:
    from ventris.cost.curve import CostCurve

UNITS = ("B", "kB", "MB", "GB", "TB")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("info")(takes_model_options(info))


def info(
    model: ModelOptions,
    measure: Annotated[bool, typer.Option("--measure", help="measure the cost curve again")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Show the machine, the cache folder, the model, and how long a forward over n nodes takes: T(n)."""
    loaded = load_model(model)
    with phases("measuring T(n)"):
        curve = loaded.cost_curve(again=measure)
    with phases("looking around"):
        facts = {"machine": machine_facts(), "cache": cache_facts(), "model": model_facts(loaded)}
    if as_json:
        measured = {"nodes": list(curve.sizes), "seconds": list(curve.seconds)}
        print_json({**facts, "cost_curve": measured})
        return
    for heading, values in facts.items():
        _print_facts(heading, values)
    _print_curve(curve)


def _print_facts(heading: str, values: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True, min_width=14)
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(name.replace("_", " ").removesuffix(" bytes"), Text(_shown(name, value)))
    console().print(Text(heading, style="bold cyan"))
    console().print(table)
    console().print()


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if name.endswith("bytes"):
        return readable_bytes(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def readable_bytes(count: float) -> str:
    """A size in the largest unit that leaves a whole digit."""
    for unit in UNITS[:-1]:
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} {UNITS[-1]}"


def _print_curve(curve: CostCurve) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("nodes", justify="right")
    table.add_column("ms", justify="right")
    table.add_column("x T(1)", justify="right")
    table.add_column("ms a node", justify="right")
    table.add_column("")
    first, longest = curve.seconds[0], curve.seconds[-1]
    for nodes, seconds in zip(curve.sizes, curve.seconds, strict=True):
        table.add_row(
            str(nodes),
            f"{seconds * 1000:.1f}",
            f"{seconds / first:.2f}",
            f"{seconds * 1000 / nodes:.2f}",
            Bar(longest, 0, seconds, width=30, color="cyan"),
        )
    console().print(Text("cost of one forward, T(n)", style="bold cyan"))
    console().print(table)
