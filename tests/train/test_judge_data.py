"""What a judge learns from: tasks with known critical words, marked answers, and swaps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace

import pytest

import ventris
from ventris.engine.errors import BadInput
from ventris.train import fact_tasks as tasks_module
from ventris.train.fact_tasks import FAMILIES, broken, fact_tasks, part_of, write_answers
from ventris.train.judge_settings import JudgeSettings
from ventris.train.marked_answers import BREAKS, Mark, MarkedAnswer, mark, of_task, read_marked
from ventris.train.settings import TextSettings
from ventris.train.swaps import answer_tasks, find_by_swaps, refused
from ventris.train.texts import TextShard, distil_texts, prompts_digest, read_prompts


@pytest.fixture(scope="module")
def model(tiny_folder):
    return ventris.load(str(tiny_folder), "float32", "torch", "cpu")


# Tasks.


@pytest.mark.parametrize("family", FAMILIES)
def test_every_wording_is_right_and_every_broken_one_wrong_from_its_place_on(family: str):
    random = Random(1)
    for task in fact_tasks(40, families=[family]):
        for answer in task.answers:
            assert task.accepts(answer), answer
            spoilt, place = broken(task, answer, random)
            assert not task.accepts(spoilt), spoilt
            assert spoilt[:place] == answer[:place]
            assert spoilt[place] != answer[place]


def test_an_answer_that_leaves_a_fact_out_or_adds_one_is_wrong():
    (task,) = fact_tasks(1, families=["purchase"])
    whole = task.answers[0]
    assert not task.accepts(whole.replace(task.facts[0], "some"))
    assert not task.accepts(f"{whole} And 7 hats.")
    assert task.accepts(f"Well then. {whole}")
    assert broken(task, "Nothing of the kind.", Random(0)) is None


def test_training_and_tests_share_no_question_and_a_seed_names_the_tasks():
    learnt = {task.question for seed in (0, 1) for task in fact_tasks(200, seed)}
    tested = {task.question for seed in (0, 1) for task in fact_tasks(200, seed, "test")}
    assert not learnt & tested
    assert all(part_of(question) == "test" for question in tested)
    assert fact_tasks(30) == fact_tasks(30) != fact_tasks(30, seed=1)
    assert len({task.question for task in fact_tasks(200)}) == 200
    assert {task.family for task in fact_tasks(12)} == set(FAMILIES)


def test_a_family_that_is_unknown_or_used_up_is_told(monkeypatch):
    with pytest.raises(BadInput, match="no family of tasks 'chess'; there are: purchase"):
        fact_tasks(1, families=["chess"])
    monkeypatch.setattr(tasks_module, "PATIENCE", 300)
    with pytest.raises(BadInput, match=r"'journey' has only about .* tasks; ask for fewer"):
        fact_tasks(10_000, families=["journey"])


def test_written_answers_are_learnt_behind_their_prompts(model, tmp_path):
    path = tmp_path / "tasks.jsonl"
    write_answers(path, fact_tasks(3), 1)
    records = read_prompts(path)
    assert [record.answer for record in records] == [task.answers[1] for task in fact_tasks(3)]
    assert prompts_digest(records) != prompts_digest(records[:2])
    (file,) = distil_texts(model, records, tmp_path / "texts", TextSettings())
    shard = TextShard.load(file)
    text, said = shard.tokens[: shard.starts[1]], shard.answer[: shard.starts[1]]
    prompt = model.request(records[0].content).prompt
    assert text[: len(prompt)].tolist() == list(prompt)
    assert not said[: len(prompt)].any()
    assert said[len(prompt) :].all()
    answer = [*model.tokenizer.encode(records[0].answer), model.tokenizer.eos_ids[0]]
    assert text[len(prompt) :].tolist() == answer


def test_a_given_answer_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "a", "answer": 3}))
    with pytest.raises(BadInput, match=r"line 1: the answer is 3; it must be a text"):
        read_prompts(tmp_path / "a.jsonl")


# Marks.


def test_the_first_wrong_token_is_marked_and_what_follows_is_neither(model):
    answer = mark(model.tokenizer, "12 cups", wrong_at=1)  # a token a character
    assert answer.marks == [Mark.RIGHT, Mark.WRONG] + [Mark.BEHIND] * 5
    assert set(mark(model.tokenizer, "12 cups").marks) == {Mark.RIGHT}
    assert mark(model.tokenizer, "12 cups", wrong_at=6).marks[-1] == Mark.WRONG


def test_a_task_gives_right_and_broken_answers_and_those_of_the_target(model):
    (task,) = fact_tasks(1)
    marked = list(of_task(task, model.tokenizer, Random(0), task.answers[0]))
    assert len(marked) == 3 * (1 + BREAKS)
    assert model.tokenizer.decode(marked[2 * (1 + BREAKS)].tokens) == task.answers[0]
    for first in range(0, len(marked), 1 + BREAKS):
        right, *wrong = marked[first : first + 1 + BREAKS]
        assert set(right.marks) == {Mark.RIGHT}
        for answer in wrong:
            place = list(answer.marks).index(Mark.WRONG)
            assert answer.tokens[:place] == right.tokens[:place]
            assert answer.tokens[place] != right.tokens[place]
            assert set(answer.marks[:place]) <= {Mark.UNKNOWN}
            assert set(answer.marks[place + 1 :]) <= {Mark.BEHIND}


def test_worked_problems_come_right_and_with_one_wrong_result(tmp_path):
    worked = "Half is 48/2 = <<48/2=24>>24.\nBoth are 48+24 = <<48+24=72>>72.\n#### 72"
    (tmp_path / "gsm.jsonl").write_text(json.dumps({"question": "How many?", "answer": worked}) + "\n\n")
    right, wrong = read_marked(tmp_path / "gsm.jsonl")
    assert right.answer == "Half is 48/2 = 24.\nBoth are 48+24 = 72.\n#### 72"
    assert (right.wrong_at, right.family) == (None, "gsm")
    place = wrong.wrong_at
    assert wrong.answer[:place] == right.answer[:place]
    assert wrong.answer[place] != right.answer[place]
    assert right.answer[place].isdigit()
    assert wrong.answer[place + 1 :] == right.answer[place + 1 :]


def test_lines_of_a_file_may_say_where_they_go_wrong(tmp_path):
    path = tmp_path / "own.jsonl"
    line = {"question": "Who?", "answer": "It was Ben.", "wrong_at": 7, "family": "people"}
    path.write_text(json.dumps(line))
    (given,) = read_marked(path)
    assert (given.answer, given.wrong_at, given.family) == ("It was Ben.", 7, "people")
    for bad, said in (
        ("{", "line 1 is no JSON"),
        (json.dumps({"question": "a"}), "lacks a text in 'question' or 'answer'"),
        (json.dumps({**line, "wrong_at": 70}), "wrong_at is 70; it must be a place in the answer"),
        ("", "holds no answers"),
    ):
        path.write_text(bad)
        with pytest.raises(BadInput, match=said):
            read_marked(path)
    with pytest.raises(BadInput, match="cannot read"):
        read_marked(tmp_path / "nowhere.jsonl")


def test_a_line_is_what_ends_with_a_line_break_and_blank_ones_only_count_as_places(tmp_path):
    path = tmp_path / "own.jsonl"
    first, second = ({"question": "Who?", "answer": f"It was{mark}Ben."} for mark in ("\u2028", "\u0085"))
    written = [json.dumps(line, ensure_ascii=False) for line in (first, second)]
    path.write_text("\n".join(["", written[0], "", written[1], "{"]), encoding="utf-8")
    assert [given.answer for given in read_marked(path, 2)] == [first["answer"], second["answer"]]
    with pytest.raises(BadInput, match="line 5 is no JSON"):
        read_marked(path)


# Swaps.


@dataclass(frozen=True)
class Loose:
    """A task that a random model can fulfil: its answer holds a letter or not."""

    question: str
    letter: str

    def accepts(self, answer: str) -> bool:
        return self.letter not in answer


def marked_by_swaps(model, **changes) -> tuple[list[Loose], list, list[list[MarkedAnswer]]]:
    settings = JudgeSettings(out="unused", draft="ngram", labels="swaps", max_new_tokens=20, **changes)
    tasks = [Loose(f"{word} {word} {word}", "e") for word in ("abc", "xyz", "kkk", "hop", "lad", "mew")]
    answers = answer_tasks(model, tasks, settings)
    return tasks, answers, find_by_swaps(model, tasks, answers, settings)


def test_refused_drafts_are_those_that_the_target_did_not_say(model):
    _, answers, _ = marked_by_swaps(model)
    found = [(done, place, token) for done in answers for place, token in refused(done, ())]
    assert len(found) > 5
    for done, place, token in found:
        plain = model.generate([*done.prompt, *done.tokens[:place]], max_new_tokens=1)
        assert plain.tokens == [done.tokens[place]] != [token]


def test_a_swap_is_right_if_the_answer_still_is(model):
    tasks, answers, marked = marked_by_swaps(model)
    kinds = set()
    for task, done, found in zip(tasks, answers, marked, strict=True):
        if not task.accepts(done.text):
            assert not found
        for answer in found:
            assert answer.swapped
            wrong = Mark.WRONG in answer.marks
            kinds.add(wrong)
            last = max(place for place, one in enumerate(answer.marks) if one != Mark.UNKNOWN)
            head = list(answer.tokens[: last + 1])
            rest = model.generate([*done.prompt, *head], max_new_tokens=20 - len(head)).tokens
            whole = model.tokenizer.decode([*head, *rest])
            assert task.accepts(whole) == (not wrong)
            if not wrong:
                assert [*head, *rest] == list(answer.tokens)
    assert kinds == {True, False}


def test_the_last_token_of_an_answer_is_not_swapped(model):
    """Nothing could be decoded behind it."""
    plain = SimpleNamespace(visits=[SimpleNamespace(node=0, token=5)], parents=[-1], tokens=[4])
    last = SimpleNamespace(visits=[SimpleNamespace(node=0, token=5)], parents=[-1, 0], tokens=[4, 6])
    trace = SimpleNamespace(steps=[*[plain] * 19, last])
    done = SimpleNamespace(prompt=[3, 4], tokens=[5] * 20, text="", trace=trace)
    assert list(refused(done, ())) == [(19, 6)]
    settings = JudgeSettings(out="unused", draft="ngram", labels="swaps", max_new_tokens=20)
    assert find_by_swaps(model, [Loose("abc", "e")], [done], settings) == [[]]


def test_no_more_swaps_are_tried_than_asked_for(model):
    _, _, marked = marked_by_swaps(model, swaps=1)
    known = [sum(one != Mark.UNKNOWN for answer in found for one in answer.marks) for found in marked]
    assert max(known) == 1


def test_swaps_do_not_depend_on_the_batch(model):
    assert marked_by_swaps(model, answer_batch=1)[2] == marked_by_swaps(model, answer_batch=4)[2]
