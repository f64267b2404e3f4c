"""``ventris bench``: decoding methods compared on the same prompts, in turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ventris.bench.settings import BenchSettings, read_settings
from ventris.cli import bench_serve, bench_structured
from ventris.cli.bench_progress import bench_progress
from ventris.cli.command_options import with_options
from ventris.cli.option_fields import option_fields
from ventris.cli.streams import console, error_console

SEPARATORS = {"methods": ";", "peers": ",", "categories": ","}
"""Options that may be repeated, and what separates several values in one of them."""


def register(app: typer.Typer) -> None:
    """Add the command, and the further benchmarks below it."""
    group = typer.Typer(invoke_without_command=True)
    fields = tuple(option_fields(BenchSettings, lambda key: "Measurement"))
    group.callback()(with_options(bench, "settings", fields, (), _read))
    bench_structured.register(group)
    bench_serve.register(group)
    app.add_typer(group, name="bench")


def bench(
    settings: BenchSettings,
    as_json: Annotated[bool, typer.Option("--json", help="print the whole report as JSON")] = False,
    claims: Annotated[
        bool,
        typer.Option("--claims", help="measure the engine's own promises instead, each against its target"),
    ] = False,
) -> None:
    """Compare methods: tokens a second, tokens a pass, identical output, and what each step cost.

    A method is written name = draft @ policy | verifier, of which only the draft is needed; --method may be
    repeated, or hold several separated by semicolons. Plain decoding is always among them.
    """
    if claims:
        _claims(settings, as_json)
        return
    from ventris.bench import print_report, run_bench
    from ventris.bench.report.files import to_json

    with bench_progress() as progress:
        report = run_bench(settings, progress)
    if as_json:
        print(to_json(report))
        return
    print_report(report, console())
    if settings.out is not None:
        error_console().print(f"the report is in {settings.out}", style="dim", markup=False, soft_wrap=True)


def _claims(settings: BenchSettings, as_json: bool) -> None:
    from ventris.bench import measure_claims, print_claims

    with bench_progress() as progress:
        report = measure_claims(settings, progress)
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        print_claims(report.claims, console())


def _read(given: Mapping[str, Any]) -> BenchSettings:
    split = {
        key: [part.strip() for value in given[key] for part in value.split(mark) if part.strip()]
        for key, mark in SEPARATORS.items()
        if key in given
    }
    return read_settings({**given, **split})
