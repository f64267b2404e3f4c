"""How much an answer is like another one, token by token."""

from __future__ import annotations

from collections.abc import Sequence


def likeness(answer: Sequence[int], reference: Sequence[int]) -> float:
    """ROUGE-L of two texts of tokens: the F-measure of their longest common subsequence, 0 to 100."""
    total = len(answer) + len(reference)
    return 200 * longest_common(answer, reference) / total if total else 100.0


def mean_likeness(answers: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> float:
    """Mean :func:`likeness` of answers to their references."""
    scores = [likeness(answer, reference) for answer, reference in zip(answers, references, strict=True)]
    return sum(scores) / len(scores)


def longest_common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for token in one:
        above_left = 0
        for place, candidate in enumerate(other, start=1):
            above = row[place]
            row[place] = above_left + 1 if candidate == token else max(above, row[place - 1])
            above_left = above
    return row[-1]
