"""A study on disk: ``report.html`` to look at, ``report.json`` and ``tokens.npz`` to go on with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ventris.engine.errors import BadInput
from ventris.models.cache_folder import written_whole
from ventris.study.page import render_page
from ventris.study.record import StudyReport
from ventris.study.run import Study


def write_study(study: Study, folder: str | Path) -> list[Path]:
    """Write the three files, each whole or not at all.

    An array of ``tokens.npz`` is called ``<n>.<name>``, n being the place of its pair in the report, and the
    names those of :class:`~ventris.study.seen_tokens.SeenTokens`.

    Raises:
        BadInput: if the folder cannot be written.
    """
    place = Path(folder).expanduser()
    arrays: dict[str, Any] = {
        f"{number}.{name}": values.numpy()
        for number, seen in enumerate(study.seen)
        for name, values in seen.arrays()
    }
    paths = [place / name for name in ("report.json", "report.html", "tokens.npz")]
    try:
        for path, text in zip(paths, (to_json(study.report), render_page(study.report)), strict=False):
            with written_whole(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        with written_whole(paths[2]) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise BadInput(f"cannot write the study to {folder}: {error}") from None
    return paths


def to_json(report: StudyReport) -> str:
    """The report as one JSON object."""
    return json.dumps(asdict(report), allow_nan=False, indent=1)
