"""The model and the prompts of a reproduction, and what decoders do with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ventris.bench.prepare import load_model
from ventris.bench.prompts import load_questions
from ventris.bench.question import Question
from ventris.bench.race import asker
from ventris.bench.record import Report
from ventris.bench.runner import run_bench
from ventris.bench.settings import read_settings
from ventris.bench.summary import OVERALL, summarize
from ventris.engine.request import Completion
from ventris.model import Model
from ventris.papers.reproduction import Row


class OnPrompts:
    """The first turns of questions, answered by the model of a reproduction in several ways.

    Args:
        data: Prompts as JSONL; the built-in ones if ``None``.
        per_category: Prompts of each category; all if ``None``.
        max_new_tokens: Output tokens at most.
        repeats: How often each prompt is decoded where time is taken.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.
    """

    def __init__(
        self,
        data: str | None,
        per_category: int | None,
        max_new_tokens: int,
        repeats: int,
        settings: dict[str, Any],
    ) -> None:
        self.given = {
            **settings,
            "data": data,
            "per_category": per_category,
            "max_new_tokens": max_new_tokens,
            "repeats": repeats,
        }
        self.settings = read_settings(self.given)
        self.questions: Sequence[Question] = load_questions(data, self.settings.categories, per_category)
        self.model: Model = load_model(self.settings)

    def answers(self, questions: Sequence[Question] | None = None, /, **settings: Any) -> list[Completion]:
        """Each prompt answered with ``settings`` of ``Model.generate``; greedy unless they say otherwise.

        Args:
            questions: Some of the questions; all when not given.
        """
        given = {"max_new_tokens": self.settings.max_new_tokens, "temperature": self.settings.temperature}
        return [self.model.generate(prompt, **{**given, **settings}) for prompt in self.prompts(questions)]

    def prompts(self, questions: Sequence[Question] | None = None) -> list[list[int]]:
        """First turns as token ids, through the chat template; of all questions when none are given."""
        ask = asker(self.model.tokenizer)
        return [ask(question).prompt(0) for question in (self.questions if questions is None else questions)]

    def tokens_per_pass(self, draft: Any, **settings: Any) -> float:
        """Output tokens by passes of the target, with the whole draft in each step."""
        return tokens_per_pass(self.answers(draft=draft, policy="fixed", **settings))

    def against(self, what: str, tokens: float, others: Mapping[str, Any]) -> list[Row]:
        """Tokens a pass beside those of other drafters on the same prompts.

        Args:
            what: How the drafts are made, for the rows' names.
            tokens: Of the drafter in question.
            others: Drafters by what they are called.
        """
        return [
            Row(f"tokens a pass {what}, against {name}", tokens, "tokens", self.tokens_per_pass(other))
            for name, other in others.items()
        ]

    def race(self, methods: Sequence[Any], **settings: Any) -> Report:
        """The methods against plain decoding, in turn, with the policy that goes by cost."""
        chosen = read_settings({**self.given, **settings, "methods": list(methods)})
        return run_bench(chosen, model=self.model, questions=self.questions)

    def notes(self, *more: str) -> list[str]:
        """What was measured on, and further remarks."""
        target = self.model.target
        where = self.settings.data or "the built-in prompts"
        prompts = f"{len(self.questions)} prompts of {where.rpartition('/')[2]}"
        return [
            f"{self.settings.model} in {getattr(target, 'dtype', '')} on {target.device.type}, {prompts}",
            *more,
        ]


def tokens_per_pass(answers: Sequence[Completion]) -> float:
    """Output tokens by passes of the target (block efficiency), over all answers together."""
    return sum(len(done.tokens) for done in answers) / max(sum(done.stats.steps for done in answers), 1)


def speed(report: Report, method: str, category: str = OVERALL) -> float:
    """Speed as a multiple of plain decoding's in the same run: the median over questions of a category."""
    ratio = summarize(report).cells[method, category].speedup
    return ratio.median if ratio else 0.0


def speed_row(report: Report, method: str) -> Row:
    """:func:`speed` as a row."""
    return Row(f"speed with {method}, as a multiple of plain decoding's", speed(report, method), "x")
