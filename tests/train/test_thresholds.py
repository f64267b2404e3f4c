"""Fitting Big Little Decoder's thresholds: what is measured, what is chosen, and the file that comes out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import ventris
from ventris.bench.methods import parse_methods
from ventris.cli import train
from ventris.cli.settings import read_config
from ventris.engine.errors import BadInput
from ventris.engine.request import Completion, Stats
from ventris.options import read_generation_options
from ventris.train.fact_tasks import fact_tasks, part_of
from ventris.train.scored import Outcome, ScoredTask, scored_answers, scored_facts
from ventris.train.settings import read_settings
from ventris.train.threshold_settings import ThresholdSettings
from ventris.train.thresholds import (
    Costs,
    Fitted,
    Thresholds,
    fastest_within,
    reaching,
    read_thresholds,
    train_thresholds,
    try_grid,
)

COSTS = Costs(token=1.0, call=1.0, draft=0.1)


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> ventris.Model:
    return ventris.load(str(tiny_folder), "float32", "torch", "cpu")


@pytest.fixture
def fitting(tiny_folder: Path, tmp_path: Path) -> dict[str, object]:
    """Settings of a fit; the small model is the large one."""
    return {
        "model": str(tiny_folder),
        "draft": f'model:"{tiny_folder}"',
        "out": str(tmp_path / "fitted.yaml"),
        "device": "cpu",
        "dtype": "float32",
        "threads": 1,
        "tasks": 6,
        "confidences": [0.0, 0.4],
        "distances": [50.0],
        "max_new_tokens": 12,
    }


def outcome(quality: float, calls: int, tokens: int = 100, drafted: int = 0) -> Outcome:
    """Ten tasks, some of them right, that took so many calls each."""
    right = round(quality / 10)
    scores = (100.0,) * right + (0.0,) * (10 - right)
    return Outcome(scores, (tokens,) * 10, (calls,) * 10, drafted, 0)


def completion(steps: int, tokens: int, proposed: list[int], accepted: list[int]) -> Completion:
    done = Completion([1], tokens=[0] * tokens)
    done.stats = Stats(
        steps=steps,
        drafted=sum(proposed),
        accepted=sum(accepted),
        proposed_by_depth=proposed,
        accepted_by_depth=accepted,
    )
    return done


def test_hand_overs_and_rollbacks_are_counted():
    # Four calls: three tokens kept and one refused, then two kept and the small model stops, then nothing
    # drafted, then one refused at once.
    answers = [completion(4, 3 + 1 + 2 + 1 + 1 + 1, [3, 2, 1, 1], [2, 2, 1, 0])]
    found = Outcome.of([ScoredTask("?", lambda done: 40.0)], answers)
    assert found.refused == 2
    assert found.tokens_per_call == 9 / 4
    assert found.rolled_back == pytest.approx(100 * 2 / 9)
    assert found.handed_over == pytest.approx(100 * 2 / 9)
    assert (found.quality, found.quality_error) == (40.0, 0.0)


def test_errors_are_those_of_resampling_tasks():
    random = np.random.default_rng(3)
    calls = random.integers(2, 9, 200)
    tokens = calls * 3 + random.integers(-1, 5, 200)
    scores = 100.0 * (random.random(200) < 0.8)
    found = Outcome(tuple(scores), tuple(tokens), tuple(calls), 0, 0)
    picks = random.integers(0, 200, (4000, 200))
    ratios = tokens[picks].sum(1) / calls[picks].sum(1)
    assert found.tokens_per_call_error == pytest.approx(ratios.std(), rel=0.1)
    assert found.quality_error == pytest.approx(scores[picks].mean(1).std(), rel=0.1)
    other = Outcome(tuple(100 - scores), found.tokens, found.calls, 0, 0)
    assert found.loss(found) == (0.0, 0.0)
    lost, error = other.loss(found)
    assert lost == pytest.approx(scores.mean() - (100 - scores).mean())
    assert error == pytest.approx((2 * scores - 100)[picks].mean(1).std(), rel=0.1)


def test_the_fastest_within_the_loss_is_chosen_by_time_and_not_by_calls():
    bold, good, wordy, exact = (Thresholds(0.5, nats, 10) for nats in (5.0, 2.0, 1.0, 0.0))
    plain = outcome(90, 100)
    grid = {
        bold: outcome(60, 10),
        good: outcome(90, 25),
        wordy: outcome(90, 20, drafted=5000),  # fewer calls, more time spent on drafts
        exact: outcome(90, 50),
    }
    assert fastest_within(grid, COSTS, plain, 1.0) == good
    assert fastest_within(grid, COSTS, plain, 40.0) == bold
    fitted = Fitted(plain, grid, COSTS, good, exact)
    assert fitted.front() == [good, bold]
    better = outcome(100, 100)
    assert fastest_within(grid, COSTS, better, 1.0) == exact  # none is good enough but what loses nothing


def test_the_estimated_speed_counts_a_run_for_the_token_that_is_thrown_away():
    found = Outcome((100.0,), (30,), (6,), 24, 0)
    assert COSTS.speed(found) == pytest.approx(30 / (6 + 0.1 * (24 + 6)))


def test_a_drafter_reaches_as_deep_as_the_policy():
    assert reaching("aligned", 10) == "aligned:depth=10"
    assert reaching('aligned:"a,b"', 7) == 'aligned:"a,b",depth=7'
    assert reaching("aligned:folder,depth=3", 10) == "aligned:folder,depth=3"
    assert reaching("ngram", 10) == "ngram"


def test_a_grid_on_a_small_model_that_is_the_large_one(tiny, fitting):
    settings = read_settings(ThresholdSettings, fitting)
    tasks = scored_facts(fact_tasks(6, 0, "test"))
    fitted = try_grid(tiny, str(fitting["draft"]), tasks, settings)
    assert [(p.confidence, p.nats) for p in fitted.grid] == [(0.0, 0.0), (0.0, 50.0), (0.4, 0.0), (0.4, 50.0)]
    for found in fitted.grid.values():
        assert found.loss(fitted.plain)[0] == 0
        assert found.tokens == fitted.plain.tokens
    sure = fitted.grid[Thresholds(0.0, 0.0, 10)]
    assert sure.tokens_per_call > 4  # drafts of ten tokens, all right
    assert fitted.chosen in fitted.front()
    assert fitted.exact.nats == 0


def test_a_fit_writes_settings_that_every_command_takes(tiny, fitting):
    fitted = train_thresholds(read_settings(ThresholdSettings, fitting))
    parts = read_thresholds(str(fitting["out"]))
    assert parts == fitted.chosen.settings(str(fitting["draft"]))
    assert parts["draft"].endswith(",depth=10")
    given = read_config(Path(str(fitting["out"])))
    read_generation_options(given)
    (_, method) = parse_methods([str(fitting["out"])])
    assert (method.draft, method.policy, method.verifier) == tuple(parts.values())
    done = tiny.generate("abc", max_new_tokens=12, **given)
    assert done.stats.accepted > 0
    assert not done.guarantee.exact
    remarks = [line for line in Path(str(fitting["out"])).read_text().splitlines() if line.startswith("#")]
    assert any("6 tasks" in line for line in remarks)


def test_answers_are_scored_against_the_reference_or_the_targets_own(tiny, tmp_path):
    own = tiny.generate("abc", max_new_tokens=10)
    lines = [{"prompt": "abc"}, {"prompt": "xyz", "answer": "hello"}]
    path = tmp_path / "asked.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    first, second = scored_answers(tiny, path, None, 10)
    assert (first.question, first.score(own)) == ("abc", 100.0)
    assert second.score(Completion([], text="hello")) == 100.0
    assert second.score(Completion([], text="help")) == pytest.approx(200 * 3 / 9)
    path.write_text(json.dumps({"text": "abc"}))
    with pytest.raises(BadInput, match="texts without a prompt"):
        scored_answers(tiny, path, None, 10)


def test_what_cannot_be_used_is_refused(fitting, tmp_path):
    with pytest.raises(BadInput, match="no threshold may be below 0"):
        read_settings(ThresholdSettings, {**fitting, "confidences": [0.5, -0.1]})
    with pytest.raises(BadInput, match="--draft is needed"):
        read_settings(ThresholdSettings, {"out": "fitted.yaml"})
    wrong = tmp_path / "wrong.yaml"
    for text in ("draft: aligned", "- 1", "{"):
        wrong.write_text(text)
        with pytest.raises(BadInput, match="thresholds"):
            read_thresholds(wrong)
    with pytest.raises(BadInput, match="cannot read"):
        read_thresholds(tmp_path / "none.yaml")


def app() -> typer.Typer:
    made = typer.Typer()
    made.callback()(lambda: None)
    train.register(made)
    return made


def test_the_command_says_what_it_chose(fitting):
    words = ["train", "thresholds"]
    for key, value in fitting.items():
        several = isinstance(value, list)
        flag = f"--{key[:-1] if several else key}".replace("_", "-")
        for one in value if several else [value]:
            words += [flag, str(one)]
    result = CliRunner().invoke(app(), words, env={"COLUMNS": "400"})
    assert result.exit_code == 0, result.output
    assert "chosen: confidence 0" in result.output
    assert "exact: confidence 0" in result.output
    assert f"--config {fitting['out']}" in result.output


def test_questions_are_written_without_answers(tmp_path):
    path = tmp_path / "questions.jsonl"
    words = ["train", "tasks", "--out", str(path), "--count", "5", "--unanswered"]
    assert CliRunner().invoke(app(), words).exit_code == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["prompt"] for line in lines] == [task.question for task in fact_tasks(5)]
    assert all(set(line) == {"prompt", "family"} and part_of(line["prompt"]) == "train" for line in lines)
    refused = CliRunner().invoke(app(), [*words, "--wording", "1"])
    assert isinstance(refused.exception, BadInput)
