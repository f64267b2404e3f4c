"""``ventris batch``: a file of requests, answered into a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ventris.cli.bench_progress import bench_progress
from ventris.cli.interrupts import asyncio_interrupts
from ventris.cli.loading import load_for
from ventris.cli.progress import phases
from ventris.cli.serve import (
    SERVER_FIELDS,
    AskedServer,
    OnRay,
    Replicas,
    check_ray,
    make_service,
    needs_packages,
    takes_server_settings,
)
from ventris.cli.settings import Asked
from ventris.cli.streams import error_console
from ventris.engine.errors import BadInput

if TYPE_CHECKING:
    from ventris.batch.run import Answerer

FOR_A_BATCH = (
    "served_name",
    "offered_drafts",
    "max_batch",
    "chunk",
    "cache_mib",
    "prefix_mib",
    "compile_seconds",
)
"""Settings of a server that count where nobody else asks."""

NO_LIMIT = 2**31 - 1
WITHOUT_CLIENTS = {
    "max_queue": NO_LIMIT,
    "max_streams": NO_LIMIT,
    "max_choices": NO_LIMIT,
    "deadline": float(NO_LIMIT),
    "backlog": NO_LIMIT,
    "compile_seconds": 60.0,
}
"""A job waits for itself only, so nothing is too many or too late."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    fields = [field for field in SERVER_FIELDS if field.key in FOR_A_BATCH]
    app.command("batch")(takes_server_settings(batch, fields, WITHOUT_CLIENTS))


def batch(
    asked: AskedServer,
    requests: Annotated[
        Path, typer.Argument(metavar="REQUESTS.jsonl", help="requests in OpenAI's batch format")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="ANSWERS.jsonl", help="where the answers go")
    ],
    on_ray: OnRay = False,
    replicas: Replicas = 1,
) -> None:
    """Answer a file of requests: one line of OpenAI's batch format each, in their order.

    A job that was broken off, in whatever way, goes on where it stopped when the same command is given again:
    answers are kept in ANSWERS.jsonl.journal until all are there. Parts and decoding settings given here are
    defaults for requests that do not say.
    """
    needs_packages("a batch job")
    from ventris.batch import BatchJob, RequestsFile, run_batch

    check_ray(on_ray, replicas)
    if output.is_dir() or (output.exists() and output.samefile(requests)):
        raise BadInput(f"the answers cannot go to {output}; name another file")
    served = asked.server.served_name or Path(asked.defaults.model.model).name
    job = BatchJob(RequestsFile(requests), output, _facts(served, asked.defaults))
    if job.finished():
        error_console().print(f"{output} is finished already", style="dim", markup=False, soft_wrap=True)
        return
    answerer = _on_ray(served, asked, replicas) if on_ray else _here(served, asked)
    with bench_progress() as progress, asyncio_interrupts():
        outcome = run_batch(answerer, job, progress)
    kept = f", {outcome.kept:,} of them by an earlier run" if outcome.kept else ""
    failed = f"; {outcome.failed:,} failed, see their status_code" if outcome.failed else ""
    error_console().print(
        f"{outcome.answered:,} answered{kept}{failed}; they are in {output}", style="dim", markup=False,
        soft_wrap=True,
    )  # fmt: skip


def _here(served: str, asked: AskedServer) -> Answerer:
    from ventris.batch import Here
    from ventris.serve.service import Service

    service = Service(load_for(asked.defaults), served, asked.server, asked.defaults.settings)
    with phases("preparing the parts"):
        service.prepare_parts()
    return Here(service)


def _on_ray(served: str, asked: AskedServer, replicas: int) -> Answerer:
    from ventris.batch.on_ray import OnRay
    from ventris.models.source import resolve

    source = resolve(asked.defaults.model.model)
    make = partial(make_service, asked.defaults.model, served, asked.server, asked.defaults.settings)
    cpus = asked.defaults.model.threads or 1
    return OnRay(make, source.fingerprint, replicas, asked.server.max_batch, cpus)


def _facts(served: str, defaults: Asked) -> dict[str, Any]:
    """What answers depend on besides the requests; devices and threads are nobody's business."""
    model = defaults.model.model_dump(include={"model", "dtype", "kernels"})
    decoding = defaults.options.model_dump(include=set(defaults.settings), mode="json", fallback=_name)
    return {"served": served, "model": model, "decoding": decoding}


def _name(part: Any) -> str:
    """A part that was built already; its own words would hold an address, which is new in every process."""
    return str(getattr(part, "name", type(part).__name__))
