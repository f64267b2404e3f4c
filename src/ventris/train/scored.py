"""Questions whose answers are scored, and what a way of decoding makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ventris.bench.likeness import likeness
from ventris.engine.errors import BadInput
from ventris.engine.request import Completion
from ventris.model import Model
from ventris.train.fact_tasks import FactTask
from ventris.train.texts import read_prompts


@dataclass(frozen=True, slots=True)
class ScoredTask:
    """A question, and how good an answer to it is: 0 to 100."""

    question: str
    score: Callable[[Completion], float]


def scored_facts(tasks: Sequence[FactTask]) -> list[ScoredTask]:
    """Generated tasks: an answer is right (100) or wrong (0)."""

    def scored(task: FactTask) -> ScoredTask:
        return ScoredTask(task.question, lambda done: 100.0 * task.accepts(done.text))

    return [scored(task) for task in tasks]


def scored_answers(
    model: Model, path: str | Path, limit: int | None, max_new_tokens: int
) -> list[ScoredTask]:
    """Prompts of a JSONL file, scored by ROUGE-L over tokens against the ``answer`` in the same line.

    Where a line has none, the model's own greedy answer is the reference.

    Raises:
        BadInput: for data that cannot be used, or a model without a tokenizer.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise BadInput("the answers are texts; use a model with a tokenizer")
    records = read_prompts(path, limit)
    if not all(record.answered for record in records):
        raise BadInput(f"{path} holds texts without a prompt; thresholds are fitted on prompts")
    asked = [record.content for record in records if not record.answer]
    own = iter(model.generate(asked, max_new_tokens=max_new_tokens) if asked else ())

    def scored(question: str, reference: Sequence[int]) -> ScoredTask:
        return ScoredTask(question, lambda done: likeness(tokenizer.encode(done.text), reference))

    return [scored(record.content, tokenizer.encode(record.answer or next(own).text)) for record in records]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a way of decoding made of some tasks.

    Attributes:
        scores, tokens, calls: Of each task: its score, output tokens, and calls of the target.
        drafted: Drafted tokens that the target judged.
        refused: Calls in which it refused one of them.
    """

    scores: tuple[float, ...]
    tokens: tuple[int, ...]
    calls: tuple[int, ...]
    drafted: int
    refused: int

    @classmethod
    def of(cls, tasks: Sequence[ScoredTask], answers: Sequence[Completion]) -> Outcome:
        """What answers came to, one a task."""
        stats = [done.stats for done in answers]
        return cls(
            tuple(task.score(done) for task, done in zip(tasks, answers, strict=True)),
            tuple(len(done.tokens) for done in answers),
            tuple(one.steps for one in stats),
            sum(one.drafted for one in stats),
            # Of a chain at most one token a call is judged and not kept.
            sum(sum(one.proposed_by_depth) - sum(one.accepted_by_depth) for one in stats),
        )

    @property
    def quality(self) -> float:
        """Mean score."""
        return float(np.mean(self.scores))

    @property
    def quality_error(self) -> float:
        """Standard error of the mean score over tasks."""
        return _error(self.scores)

    def loss(self, reference: Outcome) -> tuple[float, float]:
        """Points lost against another way on the same tasks, with the standard error of the difference."""
        lost = np.subtract(reference.scores, self.scores)
        return float(lost.mean()), _error(lost.tolist())

    @property
    def tokens_per_call(self) -> float:
        """Output tokens by calls of the target, over all tasks together."""
        return sum(self.tokens) / max(sum(self.calls), 1)

    @property
    def tokens_per_call_error(self) -> float:
        """Standard error of that ratio over tasks (linearised)."""
        calls = np.asarray(self.calls, dtype=np.float64)
        residues = np.asarray(self.tokens) - self.tokens_per_call * calls
        return _error(residues.tolist()) / max(float(calls.mean()), 1.0)

    @property
    def calls_per_answer(self) -> float:
        """Calls of the target for one answer, a mean."""
        return float(np.mean(self.calls))

    @property
    def calls_error(self) -> float:
        """Standard error of that mean over tasks."""
        return _error(self.calls)

    @property
    def handed_over(self) -> float:
        """Share of the output that the target wrote because the small model stopped, 0 to 100."""
        return 100 * (sum(self.calls) - self.refused) / max(sum(self.tokens), 1)

    @property
    def rolled_back(self) -> float:
        """Share of the output that the target wrote in place of a token it refused, 0 to 100."""
        return 100 * self.refused / max(sum(self.tokens), 1)


def _error(values: Sequence[float]) -> float:
    """Standard error of a mean."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
