"""``regex``: the whole answer matches a regular expression."""

from __future__ import annotations

from typing import ClassVar, Unpack

from llguidance import LLMatcher
from pydantic import BaseModel, Field

from ventris.engine.errors import BadInput
from ventris.guide.back_ends.choice import ALL, BackEndName
from ventris.guide.back_ends.from_regex import from_regex
from ventris.guide.back_ends.language import Language
from ventris.guide.hard import HardGuide, HardSettings, with_back_ends, with_hard_options

METACHARACTERS = frozenset(r"\.+*?()|[]{}^$/&~-#")


class Regex(HardGuide):
    """Allows the texts that match ``pattern`` from beginning to end.

    The syntax is that of Rust's ``regex`` crate: Python's without look-around and back-references, which are
    refused. Classes are Unicode-aware, as in Python; write ``[0-9]`` for ASCII digits.

    Args:
        pattern: The expression; ``^`` at its beginning and ``$`` at its end change nothing.
    """

    name = "regex"
    back_ends: ClassVar[tuple[BackEndName, ...]] = ALL

    @with_back_ends
    @with_hard_options
    class Options(BaseModel):
        pattern: str = Field(description="expression that the whole answer matches")

    def __init__(self, pattern: str, **settings: Unpack[HardSettings]) -> None:
        super().__init__(**settings)
        self.limits.check_text(pattern, "regex")
        self.pattern = pattern

    def grammar(self) -> str:
        """The expression without its outer anchors."""
        return LLMatcher.grammar_from_regex(without_anchors(self.pattern))

    def language(self) -> Language:
        r"""The same; ``\d``, ``\w`` and ``\s`` are refused, which Rust and others read differently."""
        return Language(from_regex(without_anchors(self.pattern), whole=True, ascii_classes=False))


def without_anchors(pattern: str) -> str:
    """``^(a|b)$`` as ``(a|b)``.

    Raises:
        BadInput: for ``^a|b$``, where each anchor binds one arm only.
    """
    if not pattern.startswith("^") and not _ends_with_anchor(pattern):
        return pattern
    if _has_top_alternation(pattern):
        raise BadInput(
            f"regex {pattern!r} anchors one arm of an alternation; put the arms in brackets: '^(a|b)$'"
        )
    pattern = pattern.removeprefix("^")
    return pattern[:-1] if _ends_with_anchor(pattern) else pattern


def _ends_with_anchor(pattern: str) -> bool:
    body = pattern.removesuffix("$")
    return body != pattern and (len(body) - len(body.rstrip("\\"))) % 2 == 0


def _has_top_alternation(pattern: str) -> bool:
    depth, in_class, escaped = 0, False, False
    for character in pattern:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == "|" and depth == 0:
            return True
    return False


def escape(text: str) -> str:
    """A regular expression for the very text."""
    return "".join("\\" + c if c in METACHARACTERS else c for c in text)
