"""``ventris bench structured``: JSON of a given form, measured by the protocols of JSONSchemaBench."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from ventris.bench.structured.settings import StructuredSettings, read_structured_settings
from ventris.cli.bench_progress import bench_progress
from ventris.cli.command_options import with_options
from ventris.cli.option_fields import option_fields
from ventris.cli.streams import console, error_console


def register(app: typer.Typer) -> None:
    """Add the command."""
    fields = tuple(option_fields(StructuredSettings, lambda key: "Measurement"))
    app.command("structured")(with_options(structured, "settings", fields, (), _read))


def structured(settings: StructuredSettings) -> None:
    """Measure guaranteed form: what schemas are taken, whether the promise holds, and what it costs.

    mask: known instances are fed to every back end, each mask timed. suite: the official JSON Schema Test
    Suite in the same way. end-to-end: a model writes a document for each schema. cost: ratios of methods
    that take turns. quality: accuracy with and without a guide. hostile: input of people who mean harm.
    """
    from ventris.bench.structured import print_structured, run_structured, write_structured

    with bench_progress() as progress:
        report = run_structured(settings, progress)
    write_structured(report, settings.json_file, settings.html_file)
    print_structured(report, console())
    for name in (settings.json_file, settings.html_file):
        if name is not None:
            error_console().print(f"the report is in {name}", style="dim", markup=False, soft_wrap=True)


def _read(given: Mapping[str, Any]) -> StructuredSettings:
    names = [
        part.strip() for value in given.get("back_ends", ()) for part in value.split(",") if part.strip()
    ]
    return read_structured_settings({**given, **({"back_ends": names} if names else {})})
