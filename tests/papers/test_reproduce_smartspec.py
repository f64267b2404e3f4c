"""The reproduction of SmartSpec, on a tiny model: in simulated time, and on the clock."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ventris.engine.errors import BadInput
from ventris.papers.smartspec import reproduce_smartspec

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("smartspec")
    write_tiny_model(folder / "tiny")
    (folder / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": text}) for text in ("abab", "xyz")))
    return {
        "model": str(folder / "tiny"),
        "data": str(folder / "prompts.jsonl"),
        "dtype": "float32",
        "kernels": "torch",
        "max_new_tokens": 8,
        "lengths": [1, 3],
        "threads": 1,
    }


@pytest.mark.parametrize("clock", [{}, {"simulate": True}, {"replay": True}])
def test_every_load_is_compared_with_the_best_fixed_length(given, clock: dict[str, bool]) -> None:
    found = reproduce_smartspec(loads=[0, 1], requests=3, **clock, **given)
    assert found.slug == "smartspec"
    assert [row.unit for row in found.ours] == ["s"] * 9
    assert all(row.value > 0 and row.baseline is not None and row.baseline > 0 for row in found.ours)
    best, off = found.ours[0], found.ours[1]
    assert best.baseline <= off.baseline
    assert sum("length 3" in note for note in found.notes) == 3
    assert not any("/" in note for note in found.notes)


def test_nonsense_is_refused(given) -> None:
    with pytest.raises(BadInput, match="loads must be 0 or more"):
        reproduce_smartspec(loads=[-1], **given)
    with pytest.raises(BadInput, match="must be finite"):
        reproduce_smartspec(loads=[float("nan")], **given)
    with pytest.raises(BadInput, match="level_seconds needs simulate"):
        reproduce_smartspec(level_seconds=0.1, **given)
    with pytest.raises(BadInput, match="between 1 and 64"):
        reproduce_smartspec(**{**given, "lengths": [0]})
    with pytest.raises(BadInput, match="choose one"):
        reproduce_smartspec(simulate=True, replay=True, **given)
