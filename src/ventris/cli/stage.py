"""``ventris stage``: the second process of a model that is split over two."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from ventris.models.embedded import EMBEDDED_NAME


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("stage")(stage)


def stage(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="the first process's --rendezvous")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="the same checkpoint: embedded name, hub id, folder or .gguf")
    ] = EMBEDDED_NAME,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; all available ones when not given")
    ] = None,
) -> None:
    """Hold the last layers of a model for another process, until that ends.

    The other one is any command with --stages 2 --rendezvous HOST:PORT; which layers, in which
    numbers and for how long a text, it says. Both machines need the checkpoint and this version of ventris.
    """
    from ventris.models.load import place_of
    from ventris.models.split.rendezvous import Address
    from ventris.models.split.second import run_second_stage

    # It waits in a library, where Python would notice Ctrl-C at the next message at the earliest.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    run_second_stage(Address.read(address), model, place_of(device), threads)
