"""Marks without annotators: put a drafter's token in place of the target's and see where the answer ends.

Garipov et al. 2025 (AutoJudge, arXiv 2504.20039). Where the target refuses a drafted token of its greedy
answer, the token is swapped in and the target goes on from there. If the answer is still right the token was
harmless and stays; if not it was wrong, and the target's own token stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ventris.engine.request import Completion
from ventris.model import Model
from ventris.prompts import Prompt
from ventris.train.fact_tasks import FactTask
from ventris.train.judge_settings import JudgeSettings
from ventris.train.marked_answers import Mark, MarkedAnswer
from ventris.train.texts import Progress

Refused = tuple[int, int]
"""Place in an answer, and the drafted token that the target refused there."""


@dataclass(slots=True)
class _Trial:
    """An answer in which swaps are tried from left to right."""

    task: FactTask
    prompt: list[int]
    tokens: list[int]
    waiting: list[Refused]
    harmless: list[int] = field(default_factory=list)
    wrong: list[list[int]] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return len(self.harmless) + len(self.wrong)

    def marked(self) -> Iterator[MarkedAnswer]:
        """The answer with all harmless swaps, and each wrong swap behind the words before it."""
        if self.harmless:
            marks = [Mark.UNKNOWN] * len(self.tokens)
            for place in self.harmless:
                marks[place] = Mark.RIGHT
            yield MarkedAnswer(self.tokens, marks, swapped=True)
        for tokens in self.wrong:
            yield MarkedAnswer(tokens, [Mark.UNKNOWN] * (len(tokens) - 1) + [Mark.WRONG], swapped=True)


def answer_tasks(
    model: Model, tasks: Sequence[FactTask], settings: JudgeSettings, progress: Progress | None = None
) -> list[Completion]:
    """The target's greedy answers, with a trace of what the drafter said, if there is one."""
    answers: list[Completion] = []
    for first in range(0, len(tasks), settings.answer_batch):
        if progress:
            progress("answering questions", first, len(tasks))
        some = [task.question for task in tasks[first : first + settings.answer_batch]]
        answers += _decode(model, some, settings)
    return answers


def find_by_swaps(
    model: Model,
    tasks: Sequence[FactTask],
    answers: Sequence[Completion],
    settings: JudgeSettings,
    progress: Progress | None = None,
) -> list[list[MarkedAnswer]]:
    """Marked answers of each task; none where the target's own answer is not right.

    Args:
        answers: What :func:`answer_tasks` gave.
    """
    ends = model.tokenizer.eos_ids if model.tokenizer else ()
    trials = [
        _Trial(task, list(done.prompt), done.tokens, _swappable(done, ends, 0, settings))
        if task.accepts(done.text)
        else _Trial(task, list(done.prompt), done.tokens, [])
        for task, done in zip(tasks, answers, strict=True)
    ]
    begun = [trial for trial in trials if trial.waiting]
    left = sum(min(len(trial.waiting), settings.swaps) for trial in begun)
    done = 0
    while begun:
        for first in range(0, len(begun), settings.answer_batch):
            some = begun[first : first + settings.answer_batch]
            if progress:
                progress("swapping tokens", min(done, left), left)
            _try_next(model, some, settings, ends)
            done += len(some)
        begun = [trial for trial in begun if trial.waiting and trial.tried < settings.swaps]
    return [list(trial.marked()) for trial in trials]


def _try_next(model: Model, trials: Sequence[_Trial], settings: JudgeSettings, ends: Sequence[int]) -> None:
    """Try the next swap of each."""
    swapped = []
    for trial in trials:
        place, token = trial.waiting.pop(0)
        swapped.append([*trial.tokens[:place], token])
    prompts = [
        Prompt([*trial.prompt, *tokens], {"max_new_tokens": settings.max_new_tokens - len(tokens)})
        for trial, tokens in zip(trials, swapped, strict=True)
    ]
    for trial, tokens, done in zip(trials, swapped, _decode(model, prompts, settings), strict=True):
        whole = [*tokens, *done.tokens]
        text = model.tokenizer.decode(whole) if model.tokenizer else ""
        if trial.task.accepts(text):
            trial.tokens = whole
            trial.harmless.append(len(tokens) - 1)
            trial.waiting = _swappable(done, ends, len(tokens), settings)
        else:
            trial.wrong.append(tokens)


def _swappable(done: Completion, ends: Sequence[int], before: int, settings: JudgeSettings) -> list[Refused]:
    """What was refused in an answer, ``before`` tokens of which were given."""
    places = ((before + place, token) for place, token in refused(done, ends))
    # What stands at the last place has nothing to go on with.
    return [(place, token) for place, token in places if place < settings.max_new_tokens - 1]


def _decode(model: Model, prompts: Sequence[Any], settings: JudgeSettings) -> list[Completion]:
    drafting = {"draft": settings.draft, "policy": "fixed", "trace": True} if settings.draft else {}
    done: list[Completion] = model.generate(
        list(prompts), max_batch=settings.answer_batch, max_new_tokens=settings.max_new_tokens, **drafting
    )
    return done


def refused(done: Completion, ends: Sequence[int]) -> Iterator[Refused]:
    """The drafted tokens of a traced greedy answer that the target would not have said; no ends of text."""
    place = 0
    for step in done.trace.steps if done.trace else ():
        for visit in step.visits:
            below = [node for node, parent in enumerate(step.parents) if parent == visit.node]
            drafted = [step.tokens[node] for node in below if step.tokens[node] not in ends]
            agreed = visit.token in (step.tokens[node] for node in below)
            if drafted and not agreed and place < len(done.tokens):
                yield place, drafted[0]
            place += 1
