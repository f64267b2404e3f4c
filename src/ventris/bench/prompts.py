"""The questions of a benchmark, from a JSONL file or the built-in set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ventris.bench.builtin import QUESTIONS
from ventris.bench.question import Question
from ventris.engine.errors import BadInput

UNSORTED = "prompts"
"""Category of lines that name none."""

CONVERSATION = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
"""The categories of MT-Bench, which the papers report as one: multi-turn conversation."""


def load_questions(
    data: str | None = None,
    categories: Sequence[str] = (),
    per_category: int | None = None,
    template: str | None = None,
) -> list[Question]:
    """The questions to ask, in the order of the file.

    Args:
        data: JSONL with ``turns`` (Spec-Bench), ``prompt``, ``messages``, ``text`` or ``tokens`` in each
            line; ``None`` for the built-in set.
        categories: Only these; all if empty.
        per_category: The first so many of each.
        template: A prompt with the fields of each line in braces, such as ``"Solve: {question}"``, for files
            of another form; lists are joined with commas.

    Raises:
        BadInput: if the file cannot be read, a line is of no known form, or nothing is left.
    """
    if template is not None and data is None:
        raise BadInput("a template needs a file whose fields it names; give data")
    questions = list(QUESTIONS) if data is None else _read(data, template)
    known = dict.fromkeys(question.category for question in questions)
    for category in categories:
        if category not in known:
            raise BadInput(f"there is no category {category!r} in the prompts; they have: {', '.join(known)}")
    return _select(questions, categories, per_category)


def _select(
    questions: Iterable[Question], categories: Sequence[str], per_category: int | None
) -> list[Question]:
    taken: Counter[str] = Counter()
    chosen = []
    for question in questions:
        wanted = not categories or question.category in categories
        if wanted and (per_category is None or taken[question.category] < per_category):
            taken[question.category] += 1
            chosen.append(question)
    return chosen


def _read(data: str, template: str | None) -> list[Question]:
    path = Path(data).expanduser()
    try:
        # Not splitlines: a text may hold U+2028 and other marks that end a line elsewhere.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the prompts in {data}: {error}") from None
    questions = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            place = f"line {number} of {path.name}"
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise BadInput(f"{place} is no JSON: {error}") from None
            if template is not None:
                entry = _filled(template, entry, place)
            questions.append(read_question(entry, str(number), place))
    if not questions:
        raise BadInput(f"{path.name} holds no prompts; write one JSON object in each line")
    doubled = [name for name, count in Counter(question.id for question in questions).items() if count > 1]
    if doubled:
        raise BadInput(f"{path.name} has two questions with the id {doubled[0]!r}")
    return questions


def _filled(template: str, entry: Any, place: str) -> dict[str, Any]:
    """A line as a prompt made of its fields; its id and category stay."""
    if not isinstance(entry, Mapping):
        raise BadInput(f"{place} is no JSON object with a prompt")
    fields = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in entry.items()
    }
    try:
        prompt = template.format(**fields)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise BadInput(
            f"the template {template!r} does not fit {place} ({type(error).__name__}: {error}); "
            f"it has the fields {', '.join(fields)}"
        ) from None
    kept = {name: entry[name] for name in ("question_id", "id", "category") if name in entry}
    return {**kept, "prompt": prompt}


def read_question(entry: Any, fallback_id: str, place: str) -> Question:
    """A question out of one line of a file.

    Raises:
        BadInput: naming the place and what is wrong there.
    """
    if not isinstance(entry, Mapping):
        raise BadInput(f"{place} is no JSON object with a prompt")
    name = str(entry.get("question_id", entry.get("id", fallback_id)))
    category = str(entry.get("category", UNSORTED))
    if "turns" in entry:
        turns = entry["turns"]
        if not isinstance(turns, list) or not turns or not all(_text(turn) for turn in turns):
            raise BadInput(f"{place}: turns must be a list of texts")
        return Question(name, category, turns=tuple(turns))
    if _text(entry.get("prompt")):
        return Question(name, category, turns=(entry["prompt"],))
    if _text(entry.get("text")):
        return Question(name, category, text=entry["text"])
    messages = entry.get("messages")
    if isinstance(messages, list) and messages and all(isinstance(item, Mapping) for item in messages):
        return Question(name, category, messages=tuple(messages))
    tokens = entry.get("tokens")
    if isinstance(tokens, list) and tokens and all(type(item) is int and item >= 0 for item in tokens):
        return Question(name, category, tokens=tuple(tokens))
    raise BadInput(f"{place} has no prompt; give turns, prompt, messages, text or tokens")


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
