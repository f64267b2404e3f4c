"""What reproductions are tried on: a tiny model and two questions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import ventris

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from tiny_model import write_tiny_model

QUESTIONS = [{"prompt": "abc", "category": "one"}, {"prompt": "xyz", "category": "two"}]


@pytest.fixture(scope="session")
def tiny_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a reproduction: the model, the questions and how they are run."""
    folder = tmp_path_factory.mktemp("reproduce")
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    return {
        "model": str(write_tiny_model(folder / "tiny")),
        "data": str(folder / "questions.jsonl"),
        "dtype": "float32",
        "kernels": "torch",
        "threads": 1,
        "max_new_tokens": 16,
    }


@pytest.fixture(scope="session")
def tiny_model(tiny_settings: dict[str, Any]) -> ventris.Model:
    """The model of :func:`tiny_settings`, to make checkpoints for."""
    return ventris.load(tiny_settings["model"], "float32", "torch", "cpu")
