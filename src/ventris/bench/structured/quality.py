"""Does form cost sense? Three small tasks with and without a guide, and with forced text on and off.

The items are our own. They are so easy that a model of 135 million parameters solves some of them, and so
hard that it does not solve all; only there could form cost something, or help.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ventris.bench.prepare import load_model, ready_threads
from ventris.bench.race import Progress
from ventris.bench.report.wording import DASH
from ventris.bench.statistics import interval
from ventris.bench.structured import words
from ventris.bench.structured.record import Findings, Table
from ventris.bench.structured.settings import StructuredSettings
from ventris.guide import Choice, JsonSchema

if TYPE_CHECKING:
    from ventris.model import Model

TOKENS = 48
BATCH = 8

PLAIN, GUIDED, FORCED = "no guide", "guide", "guide, forced text"
METHODS = (PLAIN, GUIDED, FORCED)


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of question.

    Attributes:
        say: The user's turn for an item.
        write: The text that answers, for the examples.
        read: An answer out of a text that is of the form; ``None`` if it is not.
        find: An answer out of any text, as generously as can be.
        guide: With forced text or without.
        examples: Items that are shown; they are not asked.
    """

    name: str
    say: Callable[[dict[str, Any]], str]
    write: Callable[[Any], str]
    read: Callable[[str], Any]
    find: Callable[[str], Any]
    guide: Callable[[bool], Any]
    examples: tuple[dict[str, Any], ...]


class Answer(BaseModel):
    """One item, answered once.

    Attributes:
        right: The text is of the form and its answer is right.
        found_right: The right answer can be found in the text, whatever its form.
    """

    task: str
    item: int
    method: str
    text: str
    right: bool
    found_right: bool


def _normal(answer: Any) -> Any:
    return answer.strip().strip(".").casefold() if isinstance(answer, str) else answer


def _json_answer(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found.get("answer") if isinstance(found, dict) else None


def _word(text: str) -> Any:
    return text.strip() if text.strip() in ("positive", "negative") else None


def _find_word(text: str) -> Any:
    found = re.search(r"positive|negative", text.casefold())
    return found.group() if found else None


def _find_text(text: str) -> Any:
    found = re.search(r'"answer"\s*:\s*"([^"]*)"', text)
    return found.group(1) if found else text.strip().splitlines()[0] if text.strip() else None


def _find_number(text: str) -> Any:
    found = re.search(r'"answer"\s*:\s*"?(-?\d+)', text)
    numbers = re.findall(r"-?\d+", text)
    return int(found.group(1)) if found else int(numbers[-1]) if numbers else None


def _answer_schema(kind: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"answer": kind},
        "required": ["answer"],
        "additionalProperties": False,
    }


def _as_json(answer: Any) -> str:
    return json.dumps({"answer": answer}, separators=(",", ":"))


TASKS = (
    Task(
        "sentiment",
        lambda item: f"Review: {item['text']}\nSentiment:",
        str,
        _word,
        _find_word,
        lambda forced: Choice(["positive", "negative"], forced=forced),
        (
            {"text": "The staff were helpful and the food was great.", "answer": "positive"},
            {"text": "It stopped working after an hour.", "answer": "negative"},
            {"text": "I hated every minute of it.", "answer": "negative"},
            {"text": "A lovely present, my mother was so happy.", "answer": "positive"},
            {"text": "Broken on arrival and nobody answers.", "answer": "negative"},
            {"text": "The view from the balcony is breathtaking.", "answer": "positive"},
        ),
    ),
    Task(
        "extraction",
        lambda item: f"{item['text']}\nGive the {item['field']} as JSON with the key answer.",
        _as_json,
        _json_answer,
        _find_text,
        lambda forced: JsonSchema(_answer_schema({"type": "string", "maxLength": 40}), forced=forced),
        (
            {
                "text": "Carl bought a yellow coat in Vienna.",
                "field": "colour of the coat",
                "answer": "yellow",
            },
            {"text": "The bus to Graz leaves at ten.", "field": "destination of the bus", "answer": "Graz"},
        ),
    ),
    Task(
        "arithmetic",
        lambda item: str(item["text"]),
        _as_json,
        _json_answer,
        _find_number,
        lambda forced: JsonSchema(_answer_schema({"type": "integer"}), forced=forced),
        (
            {"text": "2 + 3", "answer": 5},
            {"text": "6 + 1", "answer": 7},
            {"text": "4 + 4", "answer": 8},
            {"text": "9 + 2", "answer": 11},
        ),
    ),
)


def read_items(task: str) -> list[dict[str, Any]]:
    """The items of a task: ``text``, ``answer``, and what its prompt needs besides."""
    folder = resources.files("ventris.bench.structured") / "tasks"
    return [json.loads(line) for line in (folder / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()]


def measure_quality(
    settings: StructuredSettings, progress: Progress, model: Model | None = None
) -> tuple[Findings, list[dict[str, Any]]]:
    """Ask every item by every method, greedily."""
    with ready_threads(settings):
        model = model or load_model(settings)
        answers = []
        total = len(TASKS) * len(METHODS)
        for place, (task, method) in enumerate((task, method) for task in TASKS for method in METHODS):
            progress(f"{task.name}: {method}", place, total)
            answers += _ask(model, task, method, read_items(task.name)[: settings.limit])
        progress("done", total, total)
    return quality_findings(answers, settings.seed), [answer.model_dump() for answer in answers]


def _ask(model: Model, task: Task, method: str, items: Sequence[dict[str, Any]]) -> list[Answer]:
    shown = [
        message
        for example in task.examples
        for message in (
            {"role": "user", "content": task.say(example)},
            {"role": "assistant", "content": task.write(example["answer"])},
        )
    ]
    prompts: list[Any] = [[*shown, {"role": "user", "content": task.say(item)}] for item in items]
    guides = [] if method == PLAIN else [task.guide(method == FORCED).bind(model.tokenizer)]
    done = []
    for start in range(0, len(prompts), BATCH):
        done += model.generate(prompts[start : start + BATCH], BATCH, guides=guides, max_new_tokens=TOKENS)
    answers = []
    for number, (item, completion) in enumerate(zip(items, done, strict=True)):
        wanted = _normal(item["answer"])
        answers.append(
            Answer(
                task=task.name,
                item=number,
                method=method,
                text=completion.text,
                right=_normal(task.read(completion.text)) == wanted,
                found_right=_normal(task.find(completion.text)) == wanted,
            )
        )
    return answers


def quality_findings(answers: Sequence[Answer], seed: int) -> Findings:
    """Accuracy of every task by every method, and what the guide changes."""
    lines, figures = [], {}
    for task in dict.fromkeys(answer.task for answer in answers):
        own = {m: [a for a in answers if a.task == task and a.method == m] for m in METHODS}
        right = {m: [a.right for a in some] for m, some in own.items()}
        found = [a.found_right for a in own[PLAIN]]
        changes = [float(g) - float(p) for g, p in zip(right[GUIDED], found, strict=True)]
        lines.append(
            [
                task,
                str(len(found)),
                words.share_interval(right[PLAIN], seed),
                words.share_interval(found, seed),
                words.share_interval(right[GUIDED], seed),
                words.share_interval(right[FORCED], seed),
                _change(changes, seed),
                str(sum(a.text != b.text for a, b in zip(own[GUIDED], own[FORCED], strict=True))),
            ]
        )
        figures[task] = {
            "no_guide": sum(right[PLAIN]) / len(found),
            "no_guide_answer_found": sum(found) / len(found),
            "guide": sum(right[GUIDED]) / len(found),
            "guide_forced_text": sum(right[FORCED]) / len(found),
        }
    note = (
        "Accuracy with 95 % bootstrap intervals. No guide, found: the answer is searched for in whatever "
        "the model wrote. Change: guide minus found, in points; an interval that holds 0 shows no "
        "difference. Texts that differ: between forced text on and off; there should be none."
    )
    heads = ["task", "items", "no guide", "no guide, found", "guide", "guide, forced text", "change"]
    table = Table(title="Accuracy", heads=[*heads, "texts that differ"], rows=lines, note=note)
    parts = [
        f"{task} {100 * f['no_guide_answer_found']:.0f} to {100 * f['guide']:.0f} %"
        for task, f in figures.items()
    ]
    return Findings(
        headline=f"Accuracy without a guide (answer searched for) and with one: {', '.join(parts)}.",
        tables=[table],
        figures=figures,
    )


def _change(changes: Sequence[float], seed: int) -> str:
    mean = 100 * sum(changes) / len(changes)
    found = interval(changes, "mean", seed)
    return (
        f"{mean:+.0f}" if found is None else f"{mean:+.0f} ({100 * found[0]:+.0f}{DASH}{100 * found[1]:+.0f})"
    )
