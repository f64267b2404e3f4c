"""``ventris bench serve``: the server under load, and under misuse."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ventris.bench.serving.settings import ServingSettings
from ventris.cli.bench_progress import bench_progress
from ventris.cli.command_options import with_options
from ventris.cli.exits import DecodingFailed
from ventris.cli.option_fields import option_fields
from ventris.cli.serve import needs_packages
from ventris.cli.settings import checked
from ventris.cli.streams import console


def register(app: typer.Typer) -> None:
    """Add the command."""
    fields = tuple(option_fields(ServingSettings, lambda key: "Measurement"))
    app.command("serve")(with_options(bench_serve, "settings", fields, (), _read))


def bench_serve(
    settings: ServingSettings,
    as_json: Annotated[bool, typer.Option("--json", help="print the whole report as JSON")] = False,
) -> None:
    """Measure the server from a second process: streams at a time against one, drafts on and off, HTTP
    against the model itself. With --soak MINUTES misuse it instead, and check every answer and its memory.
    """
    needs_packages()
    if settings.soak is not None:
        _soak(settings, as_json)
        return
    from ventris.bench.serving.measure import measure_serving
    from ventris.bench.serving.table import print_serving

    with bench_progress() as progress:
        report = measure_serving(settings, progress)
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        print_serving(report, console())


def _soak(settings: ServingSettings, as_json: bool) -> None:
    from ventris.bench.serving.soak import run_soak

    with bench_progress() as progress:
        report = run_soak(settings, progress)
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        did = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(report.did.items()))
        print(f"{report.seconds:.0f} s, {sum(report.did.values())} clients: {did}")
        print(f"{report.checked} different requests checked, {report.wrong} wrong, {report.stuck} stuck")
        print(
            f"memory: {report.warm_bytes / 1e6:.0f} MB after warm-up, then at most "
            f"{report.peak_bytes / 1e6:.0f} MB ({100 * report.growth:+.1f} %)"
        )
    sys.stdout.flush()
    if report.failures:
        raise DecodingFailed("; ".join(report.failures))


def _read(given: Mapping[str, Any]) -> ServingSettings:
    return checked(ServingSettings, given)
