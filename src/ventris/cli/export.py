"""``ventris export``: a trained drafter, or its target, for another engine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ventris.cli.streams import error_console
from ventris.models.embedded import EMBEDDED_NAME


class EagleFormat(StrEnum):
    """Forms of EAGLE-3."""

    speculators = "speculators"


class MedusaFormat(StrEnum):
    """Forms of Medusa."""

    vllm = "vllm"


class ModelFormat(StrEnum):
    """Forms of a whole model."""

    transformers = "transformers"


Checkpoint = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="folder that ventris train wrote")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="where the files go")]
TargetName = Annotated[str, typer.Option("--target", "-t", help="the target, as the other engine knows it")]
ModelName = Annotated[
    str, typer.Option("--model", "-m", help="the target: the embedded name, a hub id, a folder or a .gguf")
]


def register(app: typer.Typer) -> None:
    """Add the command with one subcommand for each method that others can run, and one for the target."""
    group = typer.Typer(
        no_args_is_help=True, help="Write a trained drafter, or its target, in the form of another engine."
    )
    group.command("eagle")(eagle)
    group.command("medusa")(medusa)
    group.command("model")(model)
    app.add_typer(group, name="export")


def eagle(
    checkpoint: Checkpoint,
    folder: Folder,
    target: TargetName = EMBEDDED_NAME,
    form: Annotated[EagleFormat, typer.Option("--format", help="of the files")] = EagleFormat.speculators,
    tokens: Annotated[int, typer.Option(min=1, max=16, help="tokens drafted ahead by default")] = 3,
) -> None:
    """EAGLE-3 in speculators' format, for vLLM and for llama.cpp's converter."""
    from ventris.export.speculators import export_eagle

    export_eagle(checkpoint, folder, target, tokens)
    _said(folder, form)


def medusa(
    checkpoint: Checkpoint,
    folder: Folder,
    model: ModelName = EMBEDDED_NAME,
    form: Annotated[MedusaFormat, typer.Option("--format", help="of the files")] = MedusaFormat.vllm,
) -> None:
    """Medusa heads as vLLM up to 0.32 reads them: a chain of best guesses there."""
    from ventris.export.vllm_medusa import export_medusa

    export_medusa(checkpoint, folder, model)
    _said(folder, form)


def model(
    source: Annotated[
        str, typer.Argument(metavar="MODEL", help="the embedded name, a hub id, a folder or a .gguf")
    ],
    folder: Folder,
    form: Annotated[ModelFormat, typer.Option("--format", help="of the files")] = ModelFormat.transformers,
) -> None:
    """A model as a transformers folder in bfloat16, tokenizer and chat template included."""
    from ventris.export.target import export_target

    export_target(source, folder)
    _said(folder, form)


def _said(folder: Path, form: StrEnum) -> None:
    error_console().print(f"the {form} checkpoint is in {folder}", style="dim", markup=False, soft_wrap=True)
