"""Small tasks with known critical words: the answer must name some facts, however it puts them.

Which words of an answer matter is known here, and whether an answer is right can be checked; that is what a
judge of tokens is trained and measured on. Generated, so there are as many as are asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from ventris.engine.errors import BadInput
from ventris.models.cache_folder import written_whole

Part = Literal["train", "test"]

NAMES = (
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Grace",
    "Henry",
    "Lena",
    "Oscar",
    "Paula",
    "Simon",
)
THINGS = ("chairs", "lamps", "tables", "books", "cups", "plates", "pens", "shirts", "hats", "boxes")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
TOWNS = ("Rome", "Oslo", "Paris", "Berlin", "Madrid", "London", "Vienna", "Lisbon", "Athens", "Dublin")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "orange", "purple", "pink")

PATIENCE = 2000
"""Tries after which a family counts as used up."""

_KINDS: tuple[tuple[str, ...], ...] = (THINGS, DAYS, TOWNS, COLOURS)
_WORD = re.compile(r"\d+(?::\d+)?|[A-Za-z]+")


@dataclass(frozen=True, slots=True)
class FactTask:
    """A question and what a right answer must and may name.

    Attributes:
        family: Which kind of task.
        facts: Words that the answer must name; of their kinds (numbers, days, towns, …) it may name
            no other …
        allowed: … but these.
        answers: Right answers in several wordings.
    """

    family: str
    question: str
    facts: tuple[str, ...]
    allowed: tuple[str, ...]
    answers: tuple[str, ...]

    def accepts(self, answer: str) -> bool:
        """True if the answer names all facts and no other word of their kinds."""
        critical = [word for word in _WORD.findall(answer) if _kind_of(word)]
        return set(self.facts) <= set(critical) <= {*self.facts, *self.allowed}


def fact_tasks(
    count: int, seed: int = 0, part: Part = "train", families: Sequence[str] = ()
) -> list[FactTask]:
    """Different tasks, the families in turn.

    Args:
        part: Every question belongs to one of the two parts, whatever the seed, so that what is measured on
            one was never seen in the other.
        families: Which; all if empty.

    Raises:
        BadInput: for a family that there is not, or one with fewer tasks.
    """
    chosen = list(families) or list(FAMILIES)
    for family in chosen:
        if family not in FAMILIES:
            raise BadInput(f"there is no family of tasks {family!r}; there are: {', '.join(FAMILIES)}")
    streams = [_stream(family, seed, part) for family in chosen]
    return [next(streams[index % len(streams)]) for index in range(count)]


def _stream(family: str, seed: int, part: Part) -> Iterator[FactTask]:
    random = Random(f"{family} {seed}")
    seen: set[str] = set()
    idle = 0
    while idle < PATIENCE:
        task = FAMILIES[family].task(family, random)
        idle += 1
        if task.question not in seen and part_of(task.question) == part:
            seen.add(task.question)
            idle = 0
            yield task
    raise BadInput(f"the family {family!r} has only about {len(seen)} tasks; ask for fewer")


def part_of(question: str) -> Part:
    """The part that a question belongs to: one in four is for tests."""
    return "test" if hashlib.sha256(question.encode()).digest()[0] % 4 == 0 else "train"


def write_answers(path: Path, tasks: Sequence[FactTask], wording: int | None = None, seed: int = 0) -> None:
    """Write tasks as JSONL with ``prompt``, ``family`` and ``answer``.

    Args:
        wording: Which of the right answers, the first is 0; ``None`` for any, at random.
    """
    random = Random(seed)
    chosen = [random.choice(task.answers) if wording is None else task.answers[wording] for task in tasks]
    _write_lines(path, tasks, [{"answer": answer} for answer in chosen])


def write_questions(path: Path, tasks: Sequence[FactTask]) -> None:
    """Write tasks as JSONL with ``prompt`` and ``family``, for a target to answer in its own words."""
    _write_lines(path, tasks, [{}] * len(tasks))


def _write_lines(path: Path, tasks: Sequence[FactTask], more: Sequence[Mapping[str, str]]) -> None:
    lines = [
        json.dumps({"prompt": task.question, **entries, "family": task.family})
        for task, entries in zip(tasks, more, strict=True)
    ]
    with written_whole(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def broken(task: FactTask, answer: str, random: Random) -> tuple[str, int] | None:
    """The answer with one of its facts replaced by another word of its kind.

    Returns:
        The broken answer and the place of the first wrong character; ``None`` if the answer names no fact.
    """
    places = [found for found in _WORD.finditer(answer) if found.group() in task.facts]
    if not places:
        return None
    found = random.choice(places)
    word = found.group()
    wrong = _another(word, {*task.facts, *task.allowed}, random)
    same = next(
        (i for i, (a, b) in enumerate(zip(word, wrong, strict=False)) if a != b), min(len(word), len(wrong))
    )
    return answer[: found.start()] + wrong + answer[found.end() :], found.start() + same


def _kind_of(word: str) -> tuple[str, ...]:
    if word[0].isdigit():
        return ("a number",)
    return next((kind for kind in _KINDS if word in kind), ())


def _another(word: str, avoided: set[str], random: Random) -> str:
    if not word[0].isdigit():
        return random.choice([other for other in _kind_of(word) if other not in avoided])
    while True:
        other = "".join(str(random.randrange(10)) if letter.isdigit() else letter for letter in word)
        if other not in avoided and (other[0] != "0" or word[0] == "0"):
            return other


@dataclass(frozen=True, slots=True)
class _Family:
    """How tasks of one kind are put together; texts name what was drawn in braces.

    Attributes:
        draws: What is drawn from where, in order; several names in one entry get different words.
        facts, allowed: As of :class:`FactTask`, by the names that were drawn.
        total: Names of numbers whose sum is ``total``.
    """

    draws: Mapping[str, Sequence[str] | range]
    question: str
    facts: Sequence[str]
    answers: Sequence[str]
    allowed: Sequence[str] = ()
    total: Sequence[str] = ()

    def task(self, name: str, random: Random) -> FactTask:
        """A task at random."""
        drawn: dict[str, str] = {}
        for names, source in self.draws.items():
            several = names.split()
            words = [random.choice(source)] if len(several) == 1 else random.sample(source, len(several))
            drawn |= zip(several, map(str, words), strict=True)
        drawn["total"] = str(sum(int(drawn[number]) for number in self.total))
        return FactTask(
            name,
            self.question.format(**drawn),
            tuple(drawn[name] for name in self.facts),
            tuple(drawn[name] for name in self.allowed),
            tuple(answer.format(**drawn) for answer in self.answers),
        )


FAMILIES: dict[str, _Family] = {
    "purchase": _Family(
        {"name": NAMES, "first second": THINGS, "n m": range(2, 60)},
        "{name} bought {n} {first} and {m} {second}. Write one sentence that says what {name} bought.",
        ("n", "first", "m", "second"),
        (
            "{name} bought {n} {first} and {m} {second}.",
            "{name} went to the store and came home with {n} {first} as well as {m} {second}.",
            "What {name} purchased were {n} {first} and, in addition, {m} {second}.",
            "In total, {m} {second} and {n} {first} were bought by {name}.",
        ),
    ),
    "colour": _Family(
        {
            "name": NAMES,
            "town": TOWNS,
            "thing": ("car", "house", "bicycle", "coat", "bag", "umbrella"),
            "colour": COLOURS,
        },
        "{name} from {town} has a {colour} {thing}. Which colour is it, and where is {name} from? "
        "Answer in one sentence.",
        ("colour", "town"),
        (
            "The {thing} of {name} from {town} is {colour}.",
            "{name} is from {town}, and the {thing} is {colour}.",
            "It is a {colour} {thing}, and it belongs to {name}, who comes from {town}.",
            "Somebody from {town} called {name} owns this {thing}, which is {colour}.",
        ),
    ),
    "journey": _Family(
        {"town": TOWNS, "day": DAYS, "platform": range(2, 40)},
        "On {day} the train to {town} leaves from platform {platform}. Write one sentence that tells a "
        "traveller the day and the platform.",
        ("day", "platform"),
        (
            "On {day} the train to {town} leaves from platform {platform}.",
            "Go to platform {platform} if you want to take the train to {town} on {day}.",
            "Your train to {town} departs on {day}, and you find it at platform {platform}.",
            "Platform {platform} is where the train to {town} will wait for you on {day}.",
        ),
        allowed=("town",),
    ),
    "meeting": _Family(
        {
            "topic": (
                "budget",
                "new website",
                "summer party",
                "sales figures",
                "office move",
                "safety rules",
            ),
            "day": DAYS,
            "room": range(2, 100),
        },
        "There is a meeting about the {topic} on {day} in room {room}. "
        "Invite the team to it in one sentence.",
        ("day", "room"),
        (
            "You are invited to a meeting about the {topic} on {day} in room {room}.",
            "Please join us on {day} in room {room} to talk about the {topic}.",
            "Dear team, we will meet in room {room} on {day} to discuss the {topic}.",
            "Come to room {room} on {day} if you want to hear about the {topic}.",
        ),
    ),
    "sum": _Family(
        {"name": NAMES, "things": THINGS, "n": range(1, 10), "m": range(1, 10)},
        "{name} has {n} {things} and gets {m} more. How many {things} does {name} have now? "
        "Answer in one sentence.",
        ("total", "things"),
        (
            "{name} now has {total} {things}.",
            "{n} + {m} = {total}, so {name} has {total} {things} now.",
            "There are {total} {things} that {name} has now, because {n} and {m} make {total}.",
            "With {m} more, {name} has {total} {things} in total.",
        ),
        allowed=("n", "m"),
        total=("n", "m"),
    ),
    "age": _Family(
        {"name": NAMES, "town": TOWNS, "age": range(18, 90)},
        "{name} lives in {town} and is {age} years old. Write one sentence that says where {name} lives and "
        "how old {name} is.",
        ("town", "age"),
        (
            "{name} lives in {town} and is {age} years old.",
            "{name} is {age} years old and comes from {town}.",
            "At the age of {age}, {name} has a home in {town}.",
            "The home of {name}, aged {age}, is in {town}.",
        ),
    ),
}
"""Tasks by family."""
