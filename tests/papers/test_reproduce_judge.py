"""The reproduction of judge decoding, on a tiny model with a judge trained for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ventris.papers import judge_decoding
from ventris.papers.judge_decoding import Outcome, best_within, reproduce_judge_decoding
from ventris.train.fact_tasks import FAMILIES
from ventris.train.judge import train_judge
from ventris.train.judge_settings import JudgeSettings
from ventris.train.settings import read_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> dict[str, object]:
    """Settings of a reproduction; the small model is the large one, so drafts are what the target says."""
    folder = tmp_path_factory.mktemp("judge")
    tiny = str(write_tiny_model(folder / "tiny"))
    training = {
        "model": tiny,
        "out": str(folder / "judge"),
        "cache": str(folder / "cache"),
        "tasks": 24,
        "max_new_tokens": 8,
        "dtype": "float32",
        "threads": 1,
    }
    train_judge(read_settings(JudgeSettings, training))
    return {
        "checkpoint": training["out"],
        "draft": f'model:"{tiny}",depth=3',
        "model": tiny,
        "dtype": "float32",
        "kernels": "torch",
        "threads": 1,
        "max_new_tokens": 12,
        "tasks": 24,
        "thresholds": (0.5,),
        "nats": (0.0,),
        "divergences": (1.0,),
    }


def test_all_rules_stand_beside_the_exact_one(given):
    found = reproduce_judge_decoding(left_out=(), **given)
    rows = {row.name: row for row in found.ours}
    exact = rows["accepted tokens a call, exact rule"].value
    assert 1 < exact <= 3
    accepted = [row for name, row in rows.items() if name.startswith("accepted tokens a call, ")]
    assert len(accepted) == 5
    assert all(row.baseline == exact for row in accepted[1:])
    # With 0 nats the threshold on probability is the exact rule.
    assert rows["accepted tokens a call, a threshold on probability at 0 nats"].value == exact
    assert rows["task accuracy, everything kept"].value == 0  # a random model answers nothing
    assert 0 <= rows["output tokens that only the judge let pass"].value < 100
    assert any("12 generated tasks that are in no training" in note for note in found.notes)


def test_a_family_that_was_left_out_is_compared(given, monkeypatch):
    learnt = []
    fit = judge_decoding.fit_judge
    monkeypatch.setattr(
        judge_decoding,
        "fit_judge",
        lambda examples, settings: learnt.append(settings) or fit(examples, settings),
    )
    found = reproduce_judge_decoding(
        left_out=["sum"], cache=str(Path(str(given["checkpoint"])).parent), **given
    )
    assert [settings.left_out for settings in learnt] == [["sum"]]
    names = [row.name for row in found.ours]
    assert "task accuracy, sum by a judge that never saw it, against one that did" in names


def test_each_half_of_the_tasks_has_every_family(given, monkeypatch):
    halves = []
    answer = judge_decoding.OnTasks.outcome
    monkeypatch.setattr(
        judge_decoding.OnTasks,
        "outcome",
        lambda self, tasks, verifier: halves.append(tuple(tasks)) or answer(self, tasks, verifier),
    )
    reproduce_judge_decoding(left_out=(), **given)
    choosing, shown = set(halves)
    assert not set(choosing) & set(shown)
    assert all({task.family for task in half} == set(FAMILIES) for half in (choosing, shown))


def test_the_best_setting_loses_no_more_than_it_may():
    outcomes = {
        "bold": Outcome(9.0, 50.0, 30.0),
        "good": Outcome(3.0, 80.0, 20.0),
        "timid": Outcome(1.0, 82.0, 10.0),
    }
    assert best_within(outcomes, 79.0) == "good"
    assert best_within(outcomes, 81.0) == "timid"
    assert best_within(outcomes, 83.0) == "timid"
