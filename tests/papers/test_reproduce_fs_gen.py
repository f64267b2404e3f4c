"""The reproduction of FS-GEN, on a tiny model and its own first layer."""

from __future__ import annotations

import json

import pytest

from ventris.engine.errors import BadInput
from ventris.papers.fs_gen import reproduce_fs_gen

QUESTIONS = ["abc", "xyz", "hello", "1 + 1", "why", "the end"]


@pytest.fixture(scope="module")
def given(tiny_settings, tmp_path_factory):
    """Settings with lines of another form."""
    data = tmp_path_factory.mktemp("fs-gen") / "questions.jsonl"
    data.write_text("\n".join(json.dumps({"question": question}) for question in QUESTIONS))
    return {**tiny_settings, "data": str(data), "template": "Say: {question}"}


def test_the_large_model_itself_and_its_first_layer(given, tmp_path):
    found = reproduce_fs_gen(
        small=["exit:1", given["model"]], methods=["oracle", "mixture"], out=str(tmp_path / "out"), **given
    )
    rows = {row.name.partition(" (")[0] + row.name.rpartition(",")[2]: row for row in found.ours}
    assert rows["needed by exit:1 oracle"].value > 50
    assert rows[f"needed by {given['model']} oracle"].value == 0
    # Half of its own probabilities is itself.
    assert rows[f"needed by {given['model']} mixture"].value == 0
    alike = {row.name.rpartition("with ")[2]: row.value for row in found.ours if row.unit == "ROUGE-L"}
    assert alike[f"{given['model']} (1 times smaller), mixture"] == 100
    assert len(alike) == 2  # of the oracle the text is the large model's own
    passes = {row.name: row for row in found.ours if row.name.startswith("passes of the large model")}
    (twin,) = [
        row for name, row in passes.items() if name.endswith(f"{given['model']} (1 times smaller), oracle")
    ]
    # All of its drafts are kept: six tokens a pass, and what an answer's end leaves.
    assert 100 / 6 <= twin.value < 50
    assert any("no law for oracle" in note for note in found.notes)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html",
        "report.json",
        "tokens.npz",
    }
    assert "6 of questions.jsonl" in found.notes[0]
    assert found.to_json()


def test_routers_stand_beside_random_calls(given):
    found = reproduce_fs_gen(small=["exit:1"], methods=["oracle"], rates=[0.3], **given)
    closed = [row for row in found.ours if row.name.startswith("gap closed")]
    routers = [row for row in found.ours if row.name.startswith("area under the curve of the router")]
    assert routers or any("no routers" in note for note in found.notes)
    assert all(row.baseline is not None for row in closed)


@pytest.mark.parametrize(
    ("small", "said"),
    [
        ("exit:2", "write exit:N with N from 1 to 1"),
        ("exit:x", "write exit:N"),
        ("aligned", "aligned"),
        ("no/such/model", "no/such/model"),
    ],
)
def test_small_models_that_cannot_be(given, small, said):
    with pytest.raises(BadInput, match=said) as caught:
        reproduce_fs_gen(small=[small], **given)
    assert "\n" not in str(caught.value)
