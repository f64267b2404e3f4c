"""Languages as any automaton can read them: characters, sequences, choices, repetitions, rules."""

from __future__ import annotations

from dataclasses import dataclass, field

Ranges = tuple[tuple[int, int], ...]
"""Code points from the first to the last, in order and apart."""

SURROGATES = (0xD800, 0xDFFF)
LAST = 0x10FFFF


@dataclass(frozen=True, slots=True)
class Text:
    """The very text."""

    text: str


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of some."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Row:
    """One part behind another."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of some parts; of none, nothing at all."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part several times; ``most`` is ``None`` for any number of times."""

    part: Node
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What the rule of a name says."""

    name: str


Node = Text | Chars | Row | Either | Repeat | Rule
EMPTY = Text("")
NOTHING = Either(())


@dataclass(frozen=True, slots=True)
class Language:
    """A language and the rules that it names."""

    start: Node
    rules: dict[str, Node] = field(default_factory=dict)


def row(*parts: Node) -> Node:
    """A sequence; a part that allows nothing makes it nothing."""
    kept = [part for part in parts if part != EMPTY]
    if NOTHING in kept:
        return NOTHING
    return kept[0] if len(kept) == 1 else Row(tuple(kept)) if kept else EMPTY


def either(*parts: Node) -> Node:
    """A choice without those that allow nothing, and without repetitions."""
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, Either) else (part,))]
    kept = tuple(dict.fromkeys(flat))
    return kept[0] if len(kept) == 1 else Either(kept)


def repeat(part: Node, least: int = 0, most: int | None = None) -> Node:
    """A repetition; of what allows nothing only the empty one."""
    if most is not None and most < least:
        return NOTHING
    if part == NOTHING or most == 0:
        return EMPTY if least == 0 else NOTHING
    return part if least == most == 1 else Repeat(part, least, most)


def optional(part: Node) -> Node:
    """A part, or nothing in its place."""
    return repeat(part, 0, 1)


def chars(*pieces: str | tuple[int, int]) -> Node:
    """One of the characters of the texts, or between two code points."""
    ranges: list[tuple[int, int]] = []
    for piece in pieces:
        ranges += [piece] if isinstance(piece, tuple) else [(ord(letter), ord(letter)) for letter in piece]
    return Chars(ordered(ranges)) if ranges else NOTHING


def size(node: Node) -> int:
    """How many parts a node has; a rule is one."""
    match node:
        case Row(parts) | Either(parts):
            return 1 + sum(map(size, parts))
        case Repeat(part):
            return 1 + size(part)
        case _:
            return 1


def ordered(ranges: list[tuple[int, int]]) -> Ranges:
    """Ranges in order, with overlaps joined."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def without(ranges: Ranges) -> Ranges:
    """All other characters that a text can hold."""
    rest: list[tuple[int, int]] = []
    begin = 0
    for first, last in ordered([*ranges, SURROGATES]):
        if begin < first:
            rest.append((begin, first - 1))
        begin = last + 1
    return (*rest, (begin, LAST)) if begin <= LAST else tuple(rest)


DIGIT = chars((ord("0"), ord("9")))
