"""Bounds for schemas, regexes and grammars, which come from people one does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llguidance import LLParserLimits

from ventris.engine.errors import BadInput, VentrisError


class GuideStopped(VentrisError):
    """A guide passed one of its limits, or fell into an error, while decoding."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a grammar may cost.

    Attributes:
        text_bytes: Size of the schema, regex or grammar.
        depth: Nesting of brackets in it.
        rewritten_nodes: Size of a schema after rewriting, in subschemas.
        compile_seconds: Time in the compile worker.
        check_seconds: Time of one check of a whole text while it is being written; past it, the text is only
            checked once it has ended.
        compile_bytes: Memory of the compile worker beyond what it holds when idle.
        lexer_states: States of the automaton behind one request, about 1.5 kB each.
        step_items: Parser items a token.
        step_fuel: Automaton work a token, about 14 thousand a millisecond.
    """

    text_bytes: int = 2_000_000
    depth: int = 100
    rewritten_nodes: int = 50_000
    compile_seconds: float = 10.0
    check_seconds: float = 1.0
    compile_bytes: int = 1_000_000_000
    lexer_states: int = 100_000
    step_items: int = 50_000
    step_fuel: int = 500_000

    def parser_limits(self) -> LLParserLimits:
        """The same as llguidance takes them."""
        return LLParserLimits(**self.parser_settings())

    def parser_settings(self) -> dict[str, Any]:
        """Keyword arguments of ``LLParserLimits``."""
        return {
            "max_lexer_states": self.lexer_states,
            "step_max_items": self.step_items,
            "step_lexer_fuel": self.step_fuel,
            "verbose_errors": False,
        }

    def check_text(self, text: str, what: str) -> None:
        """Refuse text that is too long or nested too deeply.

        Raises:
            BadInput: naming the limit.
        """
        size = len(text.encode(errors="replace"))
        if size > self.text_bytes:
            raise BadInput(
                f"the {what} has {size:,} bytes and the limit text_bytes is {self.text_bytes:,}; "
                "make it smaller or raise the limit"
            )
        depth = deepest = 0
        for character in text:
            if character in "([{":
                depth += 1
                deepest = max(deepest, depth)
            elif character in ")]}":
                depth -= 1
        if deepest > self.depth:
            raise BadInput(
                f"the {what} nests {deepest} brackets and the limit depth is {self.depth}; "
                "make it flatter or raise the limit"
            )


DEFAULT_LIMITS = Limits()
