"""Answers whose tokens are marked right or wrong: what a judge of tokens learns from.

A broken answer is right up to its first wrong token, which is wrong; what comes behind it is neither, for it
follows from the mistake. Bachmann et al. 2025 (arXiv 2501.19309), section 4, where people marked the place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from random import Random
from typing import Any

from ventris.engine.errors import BadInput
from ventris.models.tokenizer import Tokenizer
from ventris.train.fact_tasks import FactTask, broken


class Mark(IntEnum):
    """What is known of a token."""

    WRONG = 0
    RIGHT = 1
    UNKNOWN = 2
    BEHIND = 3
    """It comes behind the first wrong one."""


@dataclass(frozen=True, slots=True)
class MarkedAnswer:
    """The tokens of an answer and a mark for each.

    Attributes:
        swapped: The marks were found by swapping tokens, not known beforehand.
    """

    tokens: Sequence[int]
    marks: Sequence[Mark]
    swapped: bool = False


@dataclass(slots=True)
class MarkedQuestion:
    """A question with marked answers.

    Attributes:
        prompt: Its tokens, up to where the answer begins.
        family: The kind of task that it belongs to.
    """

    prompt: Sequence[int]
    family: str
    answers: list[MarkedAnswer] = field(default_factory=list)


def mark(tokenizer: Tokenizer, answer: str, wrong_at: int | None = None) -> MarkedAnswer:
    """An answer that goes wrong at a character, or nowhere."""
    tokens = tokenizer.encode(answer)
    if wrong_at is None:
        return MarkedAnswer(tokens, [Mark.RIGHT] * len(tokens))
    # The first token that holds the character; what is cut in the middle of one is spelt as a longer text.
    wrong = next(
        (place for place in range(len(tokens)) if len(tokenizer.decode(tokens[: place + 1])) > wrong_at),
        len(tokens) - 1,
    )
    behind = len(tokens) - wrong - 1
    return MarkedAnswer(tokens, [Mark.RIGHT] * wrong + [Mark.WRONG] + [Mark.BEHIND] * behind)


BREAKS = 4
"""Broken forms of each right answer; what they share with it is read once."""


def of_task(
    task: FactTask, tokenizer: Tokenizer, random: Random, own: str | None = None
) -> Iterator[MarkedAnswer]:
    """Right answers to a task in two wordings, each followed by broken ones; the same of the target's own.

    Up to its mistake a broken answer is the right one over again, and not marked.

    Args:
        own: What the target answers, if that is right.
    """
    for answer in (*random.sample(task.answers, 2), *([own] if own else [])):
        yield mark(tokenizer, answer)
        for _ in range(BREAKS):
            if (found := broken(task, answer, random)) is not None:
                spoilt = mark(tokenizer, *found)
                marks = [Mark.UNKNOWN if one == Mark.RIGHT else one for one in spoilt.marks]
                yield MarkedAnswer(spoilt.tokens, marks)


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """A line of a file: an answer that is right, or goes wrong at a character."""

    question: str
    answer: str
    wrong_at: int | None
    family: str


_COMPUTED = re.compile(r"<<[^<>]*=([^<>=]*)>>")
"""A computation in a worked answer of GSM8K, its result repeated right behind it."""


def read_marked(path: str | Path, limit: int | None = None, seed: int = 0) -> list[GivenAnswer]:
    """Read JSONL with ``question`` and ``answer`` in each line.

    ``wrong_at`` says where an answer goes wrong, ``family`` what kind of task it is. Worked answers as in
    GSM8K (results as ``<<2*3=6>>6``) are right; a broken one with another result at one place comes beside
    each.

    Raises:
        BadInput: naming the first line that is none.
    """
    name = Path(path).name
    given: list[GivenAnswer] = []
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {error}") from None
    for number, line in enumerate(filter(str.strip, lines[:limit]), start=1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise BadInput(f"{name}, line {number} is no JSON: {error}") from None
        given += _given(entry, f"{name}, line {number}", Path(path).stem, Random(f"{seed} {number}"))
    if not given:
        raise BadInput(f"{name} holds no answers; write one JSON object with 'question' and 'answer' a line")
    return given


def _given(entry: Any, place: str, family: str, random: Random) -> Iterator[GivenAnswer]:
    texts = [entry.get(key) if isinstance(entry, dict) else None for key in ("question", "answer")]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise BadInput(f"{place} lacks a text in 'question' or 'answer'")
    question, answer = map(str, texts)
    wrong_at, family = entry.get("wrong_at"), str(entry.get("family", family))
    if wrong_at is not None and not (type(wrong_at) is int and 0 <= wrong_at < len(answer)):
        raise BadInput(f"{place}: wrong_at is {wrong_at!r}; it must be a place in the answer, counted from 0")
    if wrong_at is not None or not _COMPUTED.search(answer):
        yield GivenAnswer(question, answer, wrong_at, family)
        return
    yield GivenAnswer(question, _COMPUTED.sub("", answer), None, family)
    yield GivenAnswer(question, *_miscalculated(answer, random), family)


def _miscalculated(answer: str, random: Random) -> tuple[str, int]:
    """A worked answer with another result at one place, and the place of its first wrong character."""
    found = random.choice(list(_COMPUTED.finditer(answer)))
    before, result = _COMPUTED.sub("", answer[: found.start()]), found.group(1)
    digits = [place for place, letter in enumerate(result) if letter.isdigit()]
    place = random.choice(digits) if digits else 0
    wrong = random.choice([digit for digit in "0123456789" if digit != result[place : place + 1]])
    behind = _COMPUTED.sub("", answer[found.end() + len(result) :])
    return before + result[:place] + wrong + result[place + 1 :] + behind, len(before) + place
