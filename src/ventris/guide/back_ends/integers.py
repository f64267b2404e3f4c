"""Whole numbers between two bounds, digit by digit."""

from __future__ import annotations

from ventris.guide.back_ends.language import DIGIT, Node, Text, chars, either, optional, repeat, row

POSITIVE = chars((ord("1"), ord("9")))
UNBOUNDED = row(optional(Text("-")), either(Text("0"), row(POSITIVE, repeat(DIGIT))))


def integers(least: int | None, most: int | None) -> Node:
    """The numbers from ``least`` to ``most``; ``None`` is no bound."""
    if least is None and most is None:
        return UNBOUNDED
    parts: list[Node] = []
    if most is None or most >= 0:
        parts.append(_naturals(max(least or 0, 0), most))
    if least is None or least < 0:
        end = None if least is None else -least
        parts.append(row(Text("-"), _naturals(max(-most, 1) if most is not None else 1, end)))
    if (least is None or least <= 0) and (most is None or most >= 0):
        parts.append(Text("-0"))
    return either(*parts)


def _naturals(least: int, most: int | None) -> Node:
    if most is not None and least > most:
        return either()
    lower = str(least)
    if most is None:
        longer = row(POSITIVE, repeat(DIGIT, len(lower)))
        return either(_same_length(lower, "9" * len(lower)), longer)
    parts: list[Node] = []
    for size in range(len(lower), len(str(most)) + 1):
        first = max(least, 10 ** (size - 1) if size > 1 else 0)
        parts.append(_same_length(str(first), str(min(most, 10**size - 1))))
    return either(*parts)


def _same_length(lower: str, upper: str) -> Node:
    """Digits between two texts of one length."""
    if lower == upper:
        return Text(lower)
    size = len(lower) - 1
    if set(lower[1:]) <= {"0"} and set(upper[1:]) <= {"9"}:
        return row(chars((ord(lower[0]), ord(upper[0]))), repeat(DIGIT, size, size))
    if lower[0] == upper[0]:
        return row(Text(lower[0]), _same_length(lower[1:], upper[1:]))
    first, last = ord(lower[0]), ord(upper[0])
    parts = [row(Text(lower[0]), _same_length(lower[1:], "9" * size))]
    if first + 1 < last:
        parts.append(row(chars((first + 1, last - 1)), repeat(DIGIT, size, size)))
    parts.append(row(Text(upper[0]), _same_length("0" * size, upper[1:])))
    return either(*parts)
