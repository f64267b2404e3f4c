"""The reproduction of Big Little Decoder, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from ventris.engine.errors import BadInput
from ventris.papers import bild
from ventris.papers.bild import reproduce_bild
from ventris.papers.reproduction import Reproduction
from ventris.train.aligned import train_aligned
from ventris.train.fact_tasks import part_of
from ventris.train.settings import AlignedSettings, read_settings
from ventris.train.texts import read_prompts
from ventris.train.thresholds import read_thresholds

SMALL = {"tasks": 6, "fitted_on": 6, "raced": 3, "confidences": (0.0,), "nats": (50.0,)}


@pytest.fixture(scope="module")
def given(tiny_settings) -> dict[str, object]:
    return {key: value for key, value in tiny_settings.items() if key != "data"}


@pytest.fixture(scope="module")
def itself(given) -> dict[str, str]:
    """Small models that are the large one, so drafts are what the target says."""
    return dict.fromkeys(("aligned", "unaligned"), f'model:"{given["model"]}"')


def test_quality_calls_and_speeds_stand_beside_plain_decoding(given, itself, tmp_path):
    found = reproduce_bild(drafts=itself, out=str(tmp_path), **SMALL, **given)
    rows = {row.name: row for row in found.ours}
    plain = rows["calls an answer, plain decoding"]
    for name in itself:
        at = f"{name} at its thresholds"
        assert rows[f"points lost, {at}"].value == 0
        assert (
            rows[f"right answers, {name} with nothing refused; plain decoding"].value == 0
        )  # a random model's
        calls = rows[f"calls an answer, {at}; plain decoding"]
        assert calls.value < calls.baseline == plain.value
        tokens = rows[f"tokens a call, {at}; exact speculation"]
        assert tokens.value >= tokens.baseline > 4  # the same model drafts, but for rounding
        assert rows[f"output written after rollbacks, {at}; exact"].value == 0
        for what in ("tokens a second", "answers a second"):
            for method in (name, f"{name}-exact", f"{name}-goodput"):
                speed = rows[f"{what}, {method}; plain decoding"]
                assert speed.value > 0
                assert speed.error >= 0
        curve = [row for row in found.ours if row.name.startswith(f"estimated speed, {name} at confidence 0")]
        assert len(curve) >= 1
        assert read_thresholds(tmp_path / f"{name}.yaml")["policy"] == "confidence-stop:0,depth=10"
    share = rows["output written by the target, aligned; unaligned"]
    assert share.value == share.baseline == pytest.approx(100 / tokens.value)
    assert Reproduction.from_json(found.to_json()) == found


def test_tasks_that_thresholds_are_fitted_on_are_not_shown(given, itself, tmp_path, monkeypatch):
    asked = []
    tried = bild.try_grid
    monkeypatch.setattr(
        bild,
        "try_grid",
        lambda model, draft, tasks, *more, **known: (
            asked.append({task.question for task in tasks}) or tried(model, draft, tasks, *more, **known)
        ),
    )
    drafts = {"aligned": itself["aligned"]}
    reproduce_bild(drafts=drafts, out=str(tmp_path), **{**SMALL, "raced": 0}, **given)
    fitting, shown = asked
    assert len(fitting) == len(shown) == 6
    assert not fitting & shown
    assert {part_of(question) for question in fitting | shown} == {"test"}


def test_thresholds_that_were_fitted_before_are_used(given, itself, tmp_path):
    files = {}
    for name, draft in itself.items():
        files[name] = str(tmp_path / f"{name}.yaml")
        Path(files[name]).write_text(
            f"draft: '{draft},depth=10'\npolicy: confidence-stop:2\nverifier: threshold-rollback:3\n"
        )
    found = reproduce_bild(drafts=itself, thresholds=files, grid=False, **{**SMALL, "raced": 0}, **given)
    rows = {row.name: row for row in found.ours}
    # A confidence above 1 drafts nothing.
    assert rows["tokens a call, aligned at its thresholds; exact speculation"].value == 1
    assert "aligned: confidence-stop:2, threshold-rollback:3" in found.notes
    with pytest.raises(BadInput, match="by the same names"):
        reproduce_bild(thresholds=files, **SMALL, **given)


def test_two_small_models_are_tuned_and_kept(given, tmp_path, monkeypatch):
    folder = tmp_path / "first"
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "abc"}\n{"prompt": "xyz"}\n{"prompt": "uvw"}\n')
    training = {"cache": str(tmp_path / "texts"), "window": 320, "batch": 4, "shortlist": 60, "held_out": 0.1}
    first = {
        "model": given["model"],
        "dtype": "float32",
        "data": str(tmp_path / "prompts.jsonl"),
        "out": str(folder),
        "layers": 1,
        "steps": 2,
        "max_new_tokens": 8,
        "threads": 1,
        **training,
    }
    train_aligned(read_settings(AlignedSettings, first))
    out = tmp_path / "out"
    run = {
        "out": str(out),
        "start": str(folder),
        "taught": 12,
        "steps": 3,
        "training": training,
        "grid": False,
    }
    found = reproduce_bild(**run, **{**SMALL, "raced": 0}, **given)
    own, references = (read_prompts(next(out.glob(f"{name}-*.jsonl"))) for name in bild.ARMS)
    assert [record.content for record in own] == [record.content for record in references]
    assert not any(record.answer for record in own)
    assert all(record.answer for record in references)
    assert {part_of(record.content) for record in own} == {"train"}
    monkeypatch.setattr(bild, "tune", None)  # a second run trains nothing
    again = reproduce_bild(**run, **{**SMALL, "raced": 0}, **given)
    lost = [row.value for row in found.ours if row.name.startswith("points lost")]
    assert lost == [row.value for row in again.ours if row.name.startswith("points lost")]
    assert len(lost) == 2
