"""Languages of strings as JSON writes them: quoted, with escapes where JSON needs them and nowhere else."""

from __future__ import annotations

import json

from ventris.guide.back_ends.language import (
    NOTHING,
    Chars,
    Either,
    Node,
    Ranges,
    Repeat,
    Row,
    Rule,
    Text,
    chars,
    either,
    repeat,
    row,
    without,
)

ESCAPED: Ranges = ((0, 0x1F), (ord('"'), ord('"')), (ord("\\"), ord("\\")))
QUOTE = Text('"')


def spelled(value: object) -> str:
    """A value as JSON, letters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def inside(node: Node) -> Node:
    """What stands between the quotes for each text of a language."""
    match node:
        case Text(text):
            return Text(spelled(text)[1:-1])
        case Chars(ranges):
            escapes = [
                Text(spelled(chr(code))[1:-1])
                for first, last in ESCAPED
                for code in range(first, last + 1)
                if any(low <= code <= high for low, high in ranges)
            ]
            plain = without((*without(ranges), *ESCAPED))
            return either(*([Chars(plain)] if plain else []), *escapes)
        case Row(parts):
            return row(*map(inside, parts))
        case Either(parts):
            return either(*map(inside, parts))
        case Repeat(part, least, most):
            return repeat(inside(part), least, most)
        case Rule():
            return node


def quoted(node: Node) -> Node:
    """The texts of a language as JSON strings."""
    return NOTHING if node == NOTHING else row(QUOTE, inside(node), QUOTE)


ANY_CHARACTER = Chars(without(()))


def strings(least: int = 0, most: int | None = None) -> Node:
    """Strings of some length, in characters."""
    return quoted(repeat(ANY_CHARACTER, least, most))


def other_names(names: list[str]) -> Node:
    """Strings that are none of some names."""
    return quoted(_others(names))


def _others(names: list[str]) -> Node:
    """Texts that differ from each name: by another letter, by ending before, or by going on behind."""
    firsts = sorted({name[0] for name in names if name})
    ends = Text("") if "" not in names else NOTHING
    taken = chars("".join(firsts))
    rest = Chars(without(taken.ranges if isinstance(taken, Chars) else ()))
    away = row(rest, repeat(ANY_CHARACTER))
    along = [row(Text(first), _others([name[1:] for name in names if name[:1] == first])) for first in firsts]
    return either(ends, away, *along)
