"""``grammar``: the answer is a sentence of a context-free grammar."""

from __future__ import annotations

from os import PathLike
from typing import ClassVar, Unpack

from llguidance.gbnf_to_lark import gbnf_to_lark
from pydantic import BaseModel, Field

from ventris.engine.errors import BadInput
from ventris.guide.back_ends.choice import LLGUIDANCE, XGRAMMAR, BackEndName
from ventris.guide.hard import HardGuide, HardSettings, with_back_ends, with_hard_options
from ventris.guide.sources import read_text


class Grammar(HardGuide):
    """Allows the sentences of a grammar in Lark's or llama.cpp's (GBNF) notation.

    Lark: rules in lower case, terminals in upper case, ``start`` is where it begins; ``%ignore``, ``%import
    common.…``, ``%json {…}`` and, in terminals, intersection ``&`` and complement ``~`` are known.
    GBNF: ``root ::= …``.

    Args:
        source: The grammar's text, or a file with it.
    """

    name = "grammar"
    back_ends: ClassVar[tuple[BackEndName, ...]] = (LLGUIDANCE, XGRAMMAR)

    @with_back_ends
    @with_hard_options
    class Options(BaseModel):
        source: str = Field(description="file in Lark or GBNF notation, or its text")

    def __init__(self, source: str | PathLike[str], **settings: Unpack[HardSettings]) -> None:
        super().__init__(**settings)
        self.text = read_text(source, "grammar")
        if ":" not in self.text:
            raise BadInput(f"{self.text[:80]!r} is neither a file nor a grammar; write 'start: ...'")
        self.limits.check_text(self.text, "grammar")

    def source(self) -> str:
        """The grammar as the back end reads it; xgrammar reads GBNF itself."""
        if self.backend != XGRAMMAR:
            return super().source()
        if "::=" not in self.text:
            raise BadInput("xgrammar reads GBNF (root ::= ...) and no Lark here; leave backend at llguidance")
        return self.text

    def grammar(self) -> str:
        """The grammar in Lark's notation."""
        if "::=" not in self.text:
            return self.text
        try:
            return gbnf_to_lark(self.text)
        except Exception as error:  # the converter raises bare Exception
            raise BadInput(f"cannot read this GBNF: {error}") from None
