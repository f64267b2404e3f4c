"""``choice``: the answer is one of a few texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

from llguidance import LLMatcher
from pydantic import BaseModel, Field

from ventris.engine.errors import BadInput
from ventris.guide.back_ends.choice import ALL, BackEndName
from ventris.guide.back_ends.language import Language, Text, either
from ventris.guide.hard import HardGuide, HardSettings, with_back_ends, with_hard_options
from ventris.guide.regex import escape


class Choice(HardGuide):
    """Allows one of the given texts, nothing before it and nothing after.

    Args:
        options: The texts, or one string that separates them by ``|``.
    """

    name = "choice"
    back_ends: ClassVar[tuple[BackEndName, ...]] = ALL

    @with_back_ends
    @with_hard_options
    class Options(BaseModel):
        options: str | list[str] = Field(description="the texts, separated by |")

    def __init__(self, options: str | Sequence[str], **settings: Unpack[HardSettings]) -> None:
        super().__init__(**settings)
        texts = options.split("|") if isinstance(options, str) else list(options)
        if not texts or "" in texts:
            raise BadInput("a choice needs at least one text, and none of them may be empty")
        flat = "".join(texts).translate({ord(bracket): None for bracket in "()[]{}"})
        self.limits.check_text(flat, "choice")
        self.options = list(dict.fromkeys(texts))

    def grammar(self) -> str:
        """An alternation of the texts; its automaton is their trie."""
        return LLMatcher.grammar_from_regex("|".join(map(escape, self.options)))

    def language(self) -> Language:
        """An alternation of the texts."""
        return Language(either(*map(Text, self.options)))
