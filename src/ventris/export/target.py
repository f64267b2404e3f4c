"""A target as a transformers folder in bfloat16, which every other engine and converter reads."""

from __future__ import annotations

from pathlib import Path

from ventris.engine.errors import BadInput
from ventris.export.folder import require_free
from ventris.models.source import resolve
from ventris.models.target_folder import write_target_folder


def export_target(model: str | Path, folder: Path) -> None:
    """Write a model for other engines; blocks of 4 or 8 bits become plain bfloat16.

    Args:
        model: As in :func:`ventris.models.source.resolve`.
        folder: Where the files go.

    Raises:
        BadInput: if the model is not found or cannot be written this way, or ``folder`` is taken.
    """
    require_free(folder)
    source = resolve(model)
    if source.config is None:
        raise BadInput(f"{source.name} is a model that only transformers can run; copy its folder instead")
    write_target_folder(folder, source.config, source.weights, source.tokenizer)
