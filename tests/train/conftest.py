"""A tiny model on disk with a cache of its own, and prompts for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of a few thousand numbers."""
    return write_tiny_model(tmp_path_factory.mktemp("train") / "tiny")


@pytest.fixture(scope="session")
def prompts(tiny_folder: Path) -> Path:
    """Forty prompts and two texts, as JSONL."""
    path = tiny_folder.parent / "prompts.jsonl"
    lines = [{"prompt": f"say {number} and {number % 7}"} for number in range(40)]
    path.write_text("\n".join(map(json.dumps, [*lines, {"text": "abc " * 9}, {"text": "xyz " * 9}])))
    return path


@pytest.fixture(scope="session")
def quick(tiny_folder: Path, prompts: Path) -> dict[str, object]:
    """What all runs share that take a second; where they write is left open."""
    return {
        "model": str(tiny_folder),
        "data": str(prompts),
        "cache": str(tiny_folder.parent / "texts"),
        "device": "cpu",
        "threads": 1,
        "temperatures": [0.0],
        "max_new_tokens": 24,
        "heads": 3,
        "shortlist": 64,
        "batch": 4,
        "window": 64,
        "positions": 64,
        "warmup": 5,
        "held_out": 0.1,
    }


@pytest.fixture
def given(quick: dict[str, object], tmp_path: Path) -> dict[str, object]:
    """Settings of a run that takes a second."""
    return {
        **quick,
        "out": str(tmp_path / "heads"),
        "steps": 60,
        "learning_rate": 3e-3,
        "evaluate_every": 30,
        "save_every": 7,
    }
