"""Training a judge: the unit that is fitted, the rows it is fitted on, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given as for_all
from hypothesis import strategies as st
from test_train_command import app
from typer.testing import CliRunner

import ventris
from ventris.draft import DraftModel
from ventris.draft.checkpoint import read_config
from ventris.engine.errors import BadInput
from ventris.train import judge_examples
from ventris.train.judge import fit_judge, shares, train_judge
from ventris.train.judge_examples import Examples, answer_rows, prepare_examples, read_examples
from ventris.train.judge_settings import JudgeSettings
from ventris.train.marked_answers import Mark, MarkedAnswer, MarkedQuestion
from ventris.train.probe import area_under_curve, fit_probe, probe_loss, threshold_that_catches
from ventris.train.settings import read_settings
from ventris.verify import Judge

# The unit.


def separable(count: int, seed: int, rare: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of which two directions tell the label, not quite."""
    generator = torch.Generator().manual_seed(seed)
    right = torch.rand(count, generator=generator) > rare
    rows = torch.randn((count, 6), generator=generator)
    rows[:, 1] += 1.5 * right.float()
    return 3 * rows + torch.arange(6.0), right


def test_the_loss_weighs_both_kinds_alike():
    scores = torch.tensor([2.0, -1.0, 0.5, 0.0])
    right = torch.tensor([True, True, True, False])
    each = torch.tensor([2.0, -1.0, 0.5]).neg().exp().log1p()
    expected = (each.mean() + torch.tensor(2.0).log()) / 2
    assert torch.isclose(probe_loss(scores, right), expected)
    plain = (each.sum() + torch.tensor(2.0).log()) / 4
    assert torch.isclose(probe_loss(scores, right, weighted=False), plain)


def test_a_probe_finds_the_direction():
    rows, right = separable(2000, 0)
    held_rows, held_right = separable(1000, 1)
    probe = fit_probe(rows, right, (held_rows, held_right), [1.0, 0.01, 1e-4])
    assert probe.area > 0.83
    assert probe.area == pytest.approx(area_under_curve(probe.scores(held_rows), held_right))
    assert int(probe.weight.abs().argmax()) == 1


def test_without_weights_rare_wrong_tokens_are_let_through():
    rows, right = separable(3000, 0, rare=0.05)
    held_rows, held_right = separable(2000, 1, rare=0.05)
    caught = {}
    for weighted in (True, False):
        probe = fit_probe(rows, right, (held_rows, held_right), [1e-3], weighted)
        caught[weighted] = shares(probe.scores(held_rows), held_right, 0.5)[1]
    assert caught[True] > 0.6 > 0.2 > caught[False]


@for_all(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30))
def test_the_area_counts_pairs(found: list[tuple[int, bool]]):
    scores = torch.tensor([float(score) for score, _ in found])
    right = torch.tensor([label for _, label in found])
    pairs = [
        (float(a) > float(b)) + 0.5 * (float(a) == float(b)) for a in scores[right] for b in scores[~right]
    ]
    expected = sum(pairs) / len(pairs) if pairs else 0.5
    assert area_under_curve(scores, right) == pytest.approx(expected)


@for_all(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.05, 1))
def test_the_threshold_catches_what_it_must_and_no_more(wrong: list[float], share: float):
    scores = torch.tensor([*wrong, 0.5])
    right = torch.tensor([False] * len(wrong) + [True])
    threshold = threshold_that_catches(scores, right, share)
    caught = int((scores[~right] <= threshold).sum())
    assert caught >= max(share * len(wrong) - 1e-6, 1)
    fewer = int((scores[~right] < threshold).sum())
    assert fewer < share * len(wrong) + 1e-6  # a lower one would not do
    assert threshold in scores[~right]


# The rows.


@pytest.fixture(scope="module")
def model(tiny_folder):
    return ventris.load(str(tiny_folder), "float32", "torch", "cpu")


def test_the_rows_learnt_from_are_those_that_the_verifier_reads(model):
    seen: list[tuple[list[int], torch.Tensor]] = []

    class Spy(Judge):
        def select(self, walk):
            tokens = walk.tree.tokens
            seen.append(([*walk.request.tokens, *tokens[1:]], walk.tapped(*self.taps).clone()))
            super().select(walk)

    layer = model.target.num_layers
    judge = Spy(lambda rows: torch.ones(len(rows)), layer, 0.5)
    done = model.generate(
        "abc abc", draft=DraftModel(model.target, depth=3), verifier=judge, policy="fixed", max_new_tokens=12
    )
    count, checked = len(done.prompt), 0
    for text, rows in seen:
        answer = MarkedAnswer(text[count:], [Mark.RIGHT] * (len(text) - count))
        other = MarkedAnswer([5, 6, 7], [Mark.RIGHT] * 3)
        _, read = answer_rows(model.target, done.prompt, [other, answer], layer)
        drafted = len(rows) - 1
        if 0 < drafted < len(answer.tokens):
            checked += 1
            assert torch.allclose(read[-drafted:], rows[1:].float(), atol=1e-4)
            assert not torch.allclose(read[-drafted - 1 : -1], rows[1:].float(), atol=1e-2)
    assert checked > 1


def about_letters(model, shift: int) -> list[MarkedQuestion]:
    """Answers of random letters in which every ``z`` is wrong, or what stands ``shift`` places before it."""
    generator = torch.Generator().manual_seed(0)
    letters = model.tokenizer.encode("abcdefghijz")
    questions = []
    for number in range(60):
        chosen = torch.randint(len(letters), (20,), generator=generator).tolist()
        tokens = [letters[index] for index in chosen]
        wrong = [token == letters[-1] for token in tokens]
        marks = [Mark.WRONG if any(wrong[i + shift : i + shift + 1]) else Mark.RIGHT for i in range(20)]
        prompt = model.request(f"say {number}").prompt
        questions.append(MarkedQuestion(prompt, "letters", [MarkedAnswer(tokens, marks)]))
    return questions


def test_a_token_is_told_from_its_own_row_and_not_from_the_row_before(model):
    settings = JudgeSettings(out="unused")
    layer = model.target.num_layers
    own = fit_judge(read_examples(model.target, about_letters(model, 0), layer), settings)
    assert own.measured["area"] > 0.9
    before = fit_judge(read_examples(model.target, about_letters(model, 1), layer), settings)
    assert before.measured["area"] < 0.65


def test_labels_by_chance_on_real_rows_teach_nothing(model):
    examples = read_examples(model.target, about_letters(model, 0), model.target.num_layers)
    order = torch.randperm(len(examples.marks), generator=torch.Generator().manual_seed(3))
    shuffled = Examples(
        examples.rows,
        examples.marks[order],
        examples.question,
        examples.family,
        examples.swapped,
        examples.families,
    )
    assert fit_judge(shuffled, JudgeSettings(out="unused")).measured["area"] < 0.65


def test_a_family_left_out_is_measured_and_not_learnt(model):
    questions = about_letters(model, 0)
    for question in questions[::2]:
        question.family = "others"
        # Here the letter z is right, and only here anything else is wrong.
        question.answers = [
            MarkedAnswer(a.tokens, [Mark.RIGHT if m == Mark.WRONG else Mark.WRONG for m in a.marks])
            for a in question.answers
        ]
    examples = read_examples(model.target, questions, model.target.num_layers)
    measured = fit_judge(examples, JudgeSettings(out="unused", left_out=["others"])).measured
    assert measured["areas"]["letters"] > 0.9
    assert measured["areas"]["others"] < 0.2
    with pytest.raises(BadInput, match="no family 'sums' to leave out; there are: letters, others"):
        fit_judge(examples, JudgeSettings(out="unused", left_out=["sums"]))


def test_what_comes_behind_a_mistake_counts_only_if_asked_to(model):
    question = about_letters(model, 0)[0]
    marks = [Mark.RIGHT] * 5 + [Mark.WRONG] + [Mark.BEHIND] * 14
    many = [
        MarkedQuestion([*question.prompt, token], "a", [MarkedAnswer(question.answers[0].tokens, marks)])
        for token in range(3, 40)
    ]
    examples = read_examples(model.target, many, 1)
    ignored = fit_judge(examples, JudgeSettings(out="unused", layer=1))
    counted = fit_judge(examples, JudgeSettings(out="unused", layer=1, after="wrong"))
    assert not torch.equal(ignored.probe.weight, counted.probe.weight)
    assert (examples.marks == Mark.BEHIND).sum() == 14 * 37


def test_what_cannot_be_learnt_from_is_refused(model, tmp_path):
    question = MarkedQuestion([3, 4], "a", [MarkedAnswer([5], [Mark.RIGHT])])
    with pytest.raises(BadInput, match="no token is marked right, or none wrong"):
        read_examples(model.target, [question], 1)
    with pytest.raises(BadInput, match="layer 9 cannot be read, the target has 2"):
        prepare_examples(model, JudgeSettings(out="unused", layer=9, cache=str(tmp_path)))


def test_more_kinds_of_tasks_than_a_byte_counts(model):
    answers = [MarkedAnswer([5], [Mark.RIGHT]), MarkedAnswer([6], [Mark.WRONG])]
    many = [MarkedQuestion([3, 4], f"kind {place}", answers) for place in range(257)]
    examples = read_examples(model.target, many, 1)
    assert [examples.families[index] for index in examples.family[::2]] == [q.family for q in many]


# The whole run.


@pytest.fixture
def given(tiny_folder: Path, tmp_path: Path) -> dict[str, object]:
    """Settings of a run on a file whose wrong character is always the same."""
    lines = [
        {"question": f"say {number}", "answer": f"well {number} abc"[: 8 + number % 4], "family": "said"}
        for number in range(40)
    ]
    lines += [{**line, "answer": f"{line['answer']}~ but", "wrong_at": len(line["answer"])} for line in lines]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return {
        "model": str(tiny_folder),
        "data": str(tmp_path / "answers.jsonl"),
        "tasks": 0,
        "out": str(tmp_path / "judge"),
        "cache": str(tmp_path / "cache"),
        "device": "cpu",
        "dtype": "float32",
        "threads": 1,
    }


def test_a_run_writes_a_judge_that_the_verifier_loads(given, model, monkeypatch):
    settings = read_settings(JudgeSettings, given)
    trained = train_judge(settings, command="ventris train judge")
    assert trained.measured["area"] > 0.95
    folder = settings.folder
    judge = Judge.load(ventris.load(str(given["model"]), "float32", device="cpu"), folder)
    assert judge.threshold == trained.measured["threshold"]
    examples = prepare_examples(model, settings)
    scores = judge.head(examples.rows)
    assert torch.allclose(scores, trained.probe.scores(judge_scaled(examples.rows)), atol=1e-5)
    config = read_config(folder)
    assert config["training"]["settings"]["data"] == "answers.jsonl"
    assert str(folder.parent) not in json.dumps(config)
    assert f"| said | {trained.measured['area']:.3f} |" in (folder / "README.md").read_text()
    with pytest.raises(BadInput, match="holds a finished checkpoint"):
        train_judge(settings)
    # The rows are found again; nothing is read twice.
    monkeypatch.setattr(judge_examples, "read_examples", None)
    again = train_judge(settings.model_copy(update={"out": f"{folder}-2"}))
    assert torch.equal(again.probe.weight, trained.probe.weight)


def test_rows_are_made_anew_for_other_data_and_other_drafters(given, model, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        judge_examples, "marked_questions", lambda *_: made.append(1) or about_letters(model, 0)[:2]
    )
    drafter = tmp_path / "drafter"
    drafter.mkdir()
    settings = read_settings(JudgeSettings, {**given, "draft": f"medusa:{drafter}"})
    (drafter / "config.json").write_text("1")
    prepare_examples(model, settings)
    prepare_examples(model, settings)
    assert len(made) == 1
    (drafter / "config.json").write_text("2")
    prepare_examples(model, settings)
    assert len(made) == 2
    Path(str(given["data"])).write_text("{}")
    prepare_examples(model, settings)
    assert len(made) == 3
    with pytest.raises(BadInput, match=r"cannot read .*nowhere"):
        prepare_examples(model, settings.model_copy(update={"data": str(tmp_path / "nowhere")}))


def judge_scaled(rows: torch.Tensor) -> torch.Tensor:
    rows = rows.float()
    return rows / rows.square().mean(-1, keepdim=True).sqrt()


def test_settings_that_do_not_go_together_are_refused(given):
    for change, said in (
        ({"data": None}, "nothing to learn from; give --data, or --tasks above 0"),
        ({"labels": "swaps"}, "--labels swaps tries out what a drafter says"),
        ({"labels": "both", "tasks": 10}, "give --draft, and --tasks above 0"),
    ):
        with pytest.raises(BadInput, match=said):
            train_judge(read_settings(JudgeSettings, {**given, **change}))
    settings = read_settings(JudgeSettings, {**given, "draft": "aligned:/home/her/drafter,depth=8"})
    assert settings.deciding()["draft"] == "aligned:drafter,depth=8"


def test_the_commands(given, tmp_path):
    words = ["train", "judge"]
    for key, value in given.items():
        words += [f"--{key.replace('_', '-')}", str(value)]
    result = CliRunner().invoke(app(), words)
    assert result.exit_code == 0, result.output
    assert "area under the curve 0.9" in result.output
    written = tmp_path / "tasks.jsonl"
    result = CliRunner().invoke(app(), ["train", "tasks", "--out", str(written), "--count", "5"])
    assert result.exit_code == 0, result.output
    assert len(written.read_text().splitlines()) == 5
