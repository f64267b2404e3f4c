"""How good answers are, by the large model's own: how like them, and how likely it finds the text."""

from __future__ import annotations

from collections.abc import Sequence

from ventris.bench.likeness import likeness
from ventris.model import Model
from ventris.study.seen_tokens import Answer


def likenesses(answers: Sequence[Sequence[int]], references: Sequence[Answer]) -> list[float]:
    """ROUGE-L of each answer to the large model's own, 0 to 100."""
    return [likeness(tokens, reference.tokens) for tokens, reference in zip(answers, references, strict=True)]


def mean_nats(model: Model, answers: Sequence[Sequence[int]], references: Sequence[Answer]) -> float:
    """Mean of -ln p over all tokens of the answers, under the model.

    Args:
        references: Answers to the same prompts, which are taken from here.
    """
    scores: list[float] = []
    for tokens, reference in zip(answers, references, strict=True):
        scores += model.score(list(reference.prompt), list(tokens))
    return -sum(scores) / len(scores)
