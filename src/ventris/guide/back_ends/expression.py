"""Languages as one regular expression in the syntax of Rust's ``regex`` crate."""

from __future__ import annotations

from ventris.engine.errors import BadInput
from ventris.guide.back_ends.language import Chars, Either, Language, Node, Repeat, Row, Rule, Text

WORK = 20
"""Bytes written on the way, for each byte that the expression may have; rules are copied into rules."""


def to_expression(language: Language, longest: int) -> str:
    """The expression, with rules written out where they are named.

    Args:
        longest: Bytes at most.

    Raises:
        BadInput: for a language that nests in itself, or one that grows past ``longest``.
    """
    return _Writer(language, longest).written(language.start)


class _Writer:
    def __init__(self, language: Language, longest: int) -> None:
        self._rules = language.rules
        self._longest = longest
        self._known: dict[str, str | None] = {}
        self._used = 0

    def written(self, node: Node) -> str:
        text = self._written(node)
        self._used += len(text)
        if len(text) > self._longest or self._used > WORK * self._longest:
            raise BadInput(
                f"its regular expression grows past {self._longest:,} bytes (limit text_bytes); simplify it"
            )
        return text

    def _written(self, node: Node) -> str:
        match node:
            case Text(text):
                return "".join(map(_letter, text))
            case Chars(ranges):
                body = "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in ranges)
                return f"[{body}]"
            case Row(parts):
                return "".join(map(self.written, parts))
            case Either(parts):
                return "(?:" + "|".join(map(self.written, parts)) + ")"
            case Repeat(part, least, most):
                return f"(?:{self.written(part)}){{{least},{'' if most is None else most}}}"
            case Rule(name):
                return self._rule(name)

    def _rule(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = None
            self._known[name] = self.written(self._rules[name])
        text = self._known[name]
        if text is None:
            raise BadInput(
                "it nests in itself (any JSON value does, too), and a regular expression cannot; say where "
                "it ends, for instance by a type everywhere and additionalProperties false, or use xgrammar"
            )
        return f"(?:{text})"


def _letter(letter: str) -> str:
    return letter if letter.isascii() and letter.isalnum() else f"\\x{{{ord(letter):x}}}"
