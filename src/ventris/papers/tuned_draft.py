"""Tuning the draft model that a reproduction begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ventris.bench.settings import BenchSettings
from ventris.draft.checkpoint import read_config
from ventris.train.aligned import train_aligned
from ventris.train.settings import AlignedSettings
from ventris.train.settings import read_settings as read_training


def tune(out: Path, start: Path, data: str, chosen: BenchSettings, training: dict[str, Any]) -> None:
    """Train an aligned draft model further; its sizes stay unless they are given.

    Args:
        out: Folder for its checkpoint.
        start: Folder of the draft model to go on from.
        data: JSONL of prompts, as for ``ventris train``.
        chosen: Which model is the target, in which number format.
        training: Further settings of ``ventris train aligned``.

    Raises:
        BadInput: for settings or data that cannot be used.
    """
    sizes = read_config(start)["sizes"]
    shape = {
        "layers": len(sizes["layers"]),
        "own_rows": sizes["rows"] == "own",
        "shortlist": sizes["shortlist"],
    }
    model = {"model": chosen.model, "dtype": chosen.dtype}
    places = {"data": data, "out": str(out), "start": str(start)}
    train_aligned(read_training(AlignedSettings, {**model, **shape, **training, **places}))
