"""The reproduction of OmniDraft, on tiny models of two vocabularies."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ventris.engine.errors import BadInput
from ventris.papers.omnidraft import reproduce_omnidraft

sys.path.insert(0, str(Path(__file__).parents[1] / "draft"))
sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from tiny_model import write_tiny_model
from two_vocabularies import write_draft_model


def test_parts_streams_and_coming_back(tmp_path):
    tiny, draft = str(write_tiny_model(tmp_path / "tiny")), str(write_draft_model(tmp_path / "draft"))
    asked = [{"prompt": f"abc {turn}", "category": "one" if turn < 2 else "two"} for turn in range(4)]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)))
    found = reproduce_omnidraft(
        draft,
        other=draft,
        depth=3,
        rounds=4,
        toys=1,
        data=str(tmp_path / "asked.jsonl"),
        max_new_tokens=10,
        model=tiny,
        dtype="float32",
        kernels="torch",
        threads=1,
    )
    rows = {row.name: row for row in found.ours}
    for task in ("one", "two"):
        alone = rows[f"acceptance with shared tokens alone, {task}; without"]
        cache = rows[f"acceptance with the merger cache, {task}; without"]
        # The target's tokens are single characters, so there is nothing to merge.
        assert alone.value == cache.value == cache.baseline
        assert f"tokens a pass with an adaptive length, {task}; with a fixed one" in rows
    assert 0 <= rows["acceptance on coming back from another target; on the first visit"].value <= 1
    assert min(row.value for row in found.ours if row.unit in ("x", "TV")) > 0
    assert "one: 2 prompts, 0 mergers and " in found.notes[1]


def test_it_says_which_draft_model_it_needs():
    with pytest.raises(BadInput, match="make one with 'ventris train omnidraft'"):
        reproduce_omnidraft()
