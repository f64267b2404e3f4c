"""Reports on disk: ``report.json`` with every run, ``report.html`` to look at."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ventris.bench.record import Report
from ventris.bench.report.page import render_page
from ventris.bench.summary import Summary, summarize
from ventris.engine.errors import BadInput
from ventris.models.cache_folder import written_whole


def write_report(report: Report, folder: str | Path) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html``, each whole or not at all.

    Raises:
        BadInput: if the folder cannot be written.
    """
    place = Path(folder).expanduser()
    data, page = place / "report.json", place / "report.html"
    try:
        with written_whole(data) as temporary:
            temporary.write_text(to_json(report), encoding="utf-8")
        with written_whole(page) as temporary:
            temporary.write_text(render_page(report), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write the report to {folder}: {error}") from None
    return data, page


def read_report(path: str | Path) -> Report:
    """Read a ``report.json`` back, to draw its tables again.

    Raises:
        BadInput: if it is no report of this version.
    """
    try:
        stored: Any = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        if isinstance(stored, dict):
            stored.pop("summary", None)
        return Report.model_validate(stored)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the report {path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{path} is no report of this version: {name}: {first['msg'].lower()}") from None
    except ValueError as error:
        raise BadInput(f"{path} is no report: {error}") from None


def to_json(report: Report) -> str:
    """The report as one JSON object: all runs, and the figures computed from them under ``summary``."""
    data = report.model_dump(mode="json")
    data["summary"] = _plain(summarize(report))
    return json.dumps(data, allow_nan=False, indent=1)


def _plain(summary: Summary) -> dict[str, Any]:
    cells = [
        {
            **asdict(cell),
            "outside_target": cell.outside_target,
            "verdict": cell.speedup.verdict if cell.speedup else None,
        }
        for cell in summary.cells.values()
    ]
    return {
        "categories": summary.categories,
        "cells": cells,
        "batches": [asdict(cell) for cell in summary.batches],
    }
