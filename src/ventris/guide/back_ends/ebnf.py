"""Languages in the notation of xgrammar's grammars."""

from __future__ import annotations

from ventris.guide.back_ends.language import Chars, Either, Language, Node, Ranges, Repeat, Row, Rule, Text

START = "root"


def to_ebnf(language: Language) -> str:
    """A grammar that begins with the rule ``root``; no rule of the language may have that name."""
    lines = [f"{START} ::= {_written(language.start)}"]
    lines += [f"{name} ::= {_written(node)}" for name, node in language.rules.items()]
    return "\n".join(lines) + "\n"


def _written(node: Node) -> str:
    match node:
        case Text(text):
            return '"' + "".join(map(_letter, text)) + '"'
        case Chars(ranges):
            return f"[{_ranges(ranges)}]"
        case Row(parts):
            return "(" + " ".join(map(_written, parts)) + ")"
        case Either(parts):
            return "(" + " | ".join(map(_written, parts)) + ")"
        case Repeat(part, least, most):
            return f"({_written(part)}){_count(least, most)}"
        case Rule(name):
            return name


def _count(least: int, most: int | None) -> str:
    if most is None:
        return {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    return "?" if (least, most) == (0, 1) else f"{{{least},{most}}}"


def _ranges(ranges: Ranges) -> str:
    return "".join(
        _letter(chr(first)) + ("-" + _letter(chr(last)) if last > first else "") for first, last in ranges
    )


def _letter(letter: str) -> str:
    if letter.isascii() and (letter.isalnum() or letter == " "):
        return letter
    code = ord(letter)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
