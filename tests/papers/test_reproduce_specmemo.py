"""The reproduction of SpecMemo on a tiny model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ventris.engine.errors import BadInput
from ventris.papers.specmemo import reproduce_specmemo

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("specmemo")
    write_tiny_model(folder / "tiny")
    prompts = "\n".join(json.dumps({"prompt": text}) for text in ("abab", "xyz", "bcbc"))
    (folder / "prompts.jsonl").write_text(prompts)
    return {
        "model": str(folder / "tiny"),
        "data": str(folder / "prompts.jsonl"),
        "dtype": "float32",
        "kernels": "torch",
        "max_new_tokens": 8,
        "policy": "fixed",
        "turns": 2,
        "batch": 2,
        "threads": 1,
    }


def test_budgets_are_kept_and_one_that_is_too_small_is_refused_with_its_figure(given) -> None:
    found = reproduce_specmemo(shares=[1e-6, 0.9], **given)
    assert found.slug == "specmemo"
    assert [row.unit for row in found.ours] == ["tokens/s", "MB", "MB", "tokens/s"]
    peak = found.ours[1]
    assert peak.baseline is not None
    assert 0 < peak.value <= 0.9 * peak.baseline
    assert any("answers equal at all budgets" in note for note in found.notes)
    assert any("refused, prompt and answer of" in note and "bytes" in note for note in found.notes)


def test_nonsense_is_refused(given) -> None:
    with pytest.raises(BadInput, match="shares must lie between 0 and 1"):
        reproduce_specmemo(shares=[0], **given)
