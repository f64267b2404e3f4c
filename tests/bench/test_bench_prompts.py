from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ventris.bench import Question, load_questions
from ventris.bench.conversation import Conversation
from ventris.engine.errors import BadInput


class Letters:
    """A tokenizer of letters, with a template that names who speaks."""

    has_chat_template = True

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def chat(self, messages: Sequence[Any]) -> list[int]:
        said = "".join(f"{message['role'][0]}:{message['content']};" for message in messages)
        return self.encode(f"{said}a:")


def test_built_in_questions_span_the_kinds_of_task() -> None:
    questions = load_questions()
    assert len(questions) == 12
    assert {"summarization", "rag", "coding", "math_reasoning", "chat", "translation"} == {
        question.category for question in questions
    }
    assert any(question.rounds == 2 for question in questions)


def test_every_form_of_line(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"question_id": 7, "category": "writing", "turns": ["one", "two"]},
        {"prompt": "say"},
        {"text": "Once"},
        {"messages": [{"role": "user", "content": "hello"}]},
        {"tokens": [1, 2]},
    ]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    questions = load_questions(str(file))
    assert questions[0] == Question("7", "writing", turns=("one", "two"))
    prompts = [Conversation(question, Letters()).prompt(0) for question in questions]  # type: ignore[arg-type]
    texts = ["".join(map(chr, prompt)) for prompt in prompts[:4]]
    assert texts == ["u:one;a:", "u:say;a:", "Once", "u:hello;a:"]
    assert prompts[4] == [1, 2]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\U0001f600"])
def test_a_line_ends_where_json_lines_do(tmp_path: Path, mark: str) -> None:
    """These stand in texts as they are; Python's splitlines would cut there."""
    file = tmp_path / "prompts.jsonl"
    lines = [json.dumps({"prompt": f"one{mark}two"}, ensure_ascii=False), '{"prompt": "three"}']
    file.write_bytes("\r\n".join(lines).encode())
    assert [question.turns for question in load_questions(str(file))] == [(f"one{mark}two",), ("three",)]


def test_categories_and_their_number(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": f"p{i}", "category": "ab"[i % 2]}) for i in range(6)))
    assert [question.id for question in load_questions(str(file), per_category=2)] == ["1", "2", "3", "4"]
    assert [question.id for question in load_questions(str(file), ["b"])] == ["2", "4", "6"]
    with pytest.raises(BadInput, match="no category 'c'"):
        load_questions(str(file), ["c"])


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "3",
        "{}",
        '{"turns": []}',
        '{"turns": [1]}',
        '{"prompt": " "}',
        '{"tokens": [true]}',
        '{"question_id": 1, "prompt": "a"}\n{"question_id": 1, "prompt": "b"}',
        "",
    ],
)
def test_broken_files_are_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(line)
    with pytest.raises(BadInput, match=r"prompts\.jsonl"):
        load_questions(str(file))


def test_later_turns_carry_the_answers_before_them() -> None:
    talk = Conversation(Question("q", "c", turns=("one", "two")), Letters())  # type: ignore[arg-type]
    assert "".join(map(chr, talk.prompt(0))) == "u:one;a:"
    talk.answered(0, [ord("X")])
    assert "".join(map(chr, talk.prompt(1))) == "u:one;a:X;u:two;a:"


def test_a_base_model_gets_plain_text() -> None:
    tokenizer = Letters()
    tokenizer.has_chat_template = False
    talk = Conversation(Question("q", "c", turns=("one", "two")), tokenizer)  # type: ignore[arg-type]
    talk.answered(0, [ord("X")])
    assert "".join(map(chr, talk.prompt(1))) == "one\nX\ntwo\n"


def test_text_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(BadInput, match="no tokenizer"):
        Conversation(Question("q", "c", turns=("one",)), None).prompt(0)


def test_a_template_makes_prompts_of_lines_of_another_form(tmp_path: Path) -> None:
    file = tmp_path / "words.jsonl"
    file.write_text('{"id": 7, "concepts": ["dog", "run"], "category": "short"}\n{"concepts": ["cat"]}\n')
    first, second = load_questions(str(file), template="Use {concepts} {{so}}.")
    assert first == Question("7", "short", turns=("Use dog, run {so}.",))
    assert second == Question("2", "prompts", turns=("Use cat {so}.",))


@pytest.mark.parametrize("template", ["{words}", "{concepts.x}", "{0}", "{concepts", "{concepts:d}"])
def test_a_template_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, template: str) -> None:
    file = tmp_path / "words.jsonl"
    file.write_text('{"concepts": ["dog", "run"]}')
    with pytest.raises(BadInput, match=r"does not fit line 1 of words\.jsonl") as caught:
        load_questions(str(file), template=template)
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="needs a file"):
        load_questions(template=template)
