"""The reproduction of OmniDraft, on tiny models of two vocabularies."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import ventris
from ventris.engine.errors import BadInput
from ventris.papers.omnidraft import PLAIN, VARIANTS, reproduce_omnidraft
from ventris.papers.omnidraft_streams import Stream, acceptance, curve, difference, rise, tokens_per_pass
from ventris.papers.recalled import recalled
from ventris.parts import build_drafter

sys.path.insert(0, str(Path(__file__).parents[1] / "draft"))
sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from tiny_model import write_tiny_model
from two_vocabularies import write_draft_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return str(write_tiny_model(folder / "tiny")), str(write_draft_model(folder / "draft"))


def test_parts_streams_and_coming_back(folders, tmp_path):
    tiny, draft = folders
    asked = [{"prompt": f"abc {turn}", "category": "one" if turn < 3 else "two"} for turn in range(6)]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)))
    settings = {
        "draft": draft,
        "depth": 3,
        "rounds": 4,
        "toys": 1,
        "data": str(tmp_path / "asked.jsonl"),
        "journal": str(tmp_path / "journal"),
        "max_new_tokens": 10,
        "model": tiny,
        "dtype": "float32",
        "kernels": "torch",
        "threads": 1,
    }
    found = reproduce_omnidraft(other=draft, **settings)
    rows = {row.name: row for row in found.ours}
    for task in ("one", "two"):
        cache = rows[f"acceptance with the merger cache, {task}; with shared tokens alone"]
        # The target's tokens are single characters, so there is nothing to merge.
        assert cache.value == cache.baseline == rows[f"acceptance with {PLAIN}, {task}"].value
        assert f"tokens a pass with an adaptive length, {task}; with hybrid distillation" in rows
    back = rows["acceptance on them on coming back from another target; before that"]
    assert back.value == back.baseline
    assert min(row.value for row in found.ours if row.unit in ("x", "TV")) > 0
    said = "\n".join(found.notes)
    assert "one, the merger cache: 3 prompts, 0 mergers, 0 steps of learning; 0.0% of the tokens said" in said
    assert "one, acceptance: distillation over the merger cache" in said
    # A journal that is whole needs no target passes, and says the same.
    again = reproduce_omnidraft(**{**settings, "raced": False, "toys": 0})
    assert again.notes == found.notes
    with pytest.raises(BadInput, match="is about another run"):
        reproduce_omnidraft(**{**settings, "depth": 2})
    with pytest.raises(BadInput, match="there is no variant 'all'; there are: shared tokens alone"):
        reproduce_omnidraft(variants=["all"])


@pytest.mark.parametrize("variant", [PLAIN, "hybrid distillation"])
def test_a_recalled_target_meets_drafts_as_the_real_one_does(folders, variant):
    model = ventris.load(folders[0], "float32", "torch", "cpu", threads=1)
    prompts = [[1, 5, 9, 7], [3, 4], [8, 8, 2, 6, 5]]
    options = {"model": folders[1], "learn": "between", "memory": "none", "stop": 1.0, **VARIANTS[variant][1]}
    streams = [
        Stream.of(each, prompts, build_drafter({"omnidraft": options}, model.workshop), 20)
        for each in (model, recalled(model, prompts, 20))
    ]
    assert streams[0] == streams[1]
    assert sum(streams[0].drafted) > 0
    assert Stream.from_dict(json.loads(json.dumps(streams[0].to_dict()))) == streams[0]


def test_intervals_are_of_pairs_and_leave_out_what_is_the_prompts_own():
    rng = np.random.default_rng(0)
    easy = rng.integers(0, 40, 300).tolist()
    drafted = [60] * 300
    untaught = Stream(drafted, easy, drafted, drafted)
    better = Stream(drafted, [count + 1 + turn % 2 for turn, count in enumerate(easy)], drafted, drafted)
    low, high = difference(better, untaught, acceptance)
    # Prompts differ by far more than the streams do on each.
    assert low < 1.5 / 60 < high < 1.5 * low
    assert difference(untaught, untaught, acceptance) == (0, 0)
    easier_at_the_end = Stream(drafted, [10] * 150 + [40] * 150, drafted, drafted)
    assert rise(easier_at_the_end, easier_at_the_end, acceptance) == (0, 0, 0)
    learns = Stream(drafted, [10] * 150 + [46] * 150, drafted, drafted)
    more, low, high = rise(learns, easier_at_the_end, acceptance)
    assert more == low == high == pytest.approx(0.1)
    assert curve(learns, acceptance, 2) == pytest.approx([10 / 60, 46 / 60])
    assert tokens_per_pass(learns) == 1
