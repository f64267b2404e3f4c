"""``words``: the answer contains some words and leaves out others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from pydantic import BaseModel, Field

from ventris.engine.errors import BadInput
from ventris.guide.hard import HardGuide, HardSettings, with_hard_options
from ventris.guide.regex import escape


class Words(HardGuide):
    """Lets the text end once it contains every word of ``include``, and never contain one of ``exclude``.

    Words are any texts, found anywhere, inside other words too. They hold across tokens: no spelling in
    tokens gets past. A list may be one string that separates the words by ``|``.

    Args:
        include: What must be in the text.
        exclude: What must not.
        ignore_case: ``Hash`` is ``hash``.
    """

    name = "words"

    @with_hard_options
    class Options(BaseModel):
        include: str | list[str] = Field("", description="what the text must contain, separated by |")
        exclude: str | list[str] = Field("", description="what it must not contain, separated by |")
        ignore_case: bool = Field(False, description="capital letters make no difference")

    def __init__(
        self,
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
        *,
        ignore_case: bool = False,
        **settings: Unpack[HardSettings],
    ) -> None:
        super().__init__(**settings)
        self.include = _words(include)
        self.exclude = _words(exclude)
        self.ignore_case = ignore_case
        if not self.include and not self.exclude:
            raise BadInput("guide 'words' needs a word in include or exclude")
        if needless := [word for word in self.exclude if any(word in wanted for wanted in self.include)]:
            raise BadInput(f"guide 'words' cannot both include and exclude {needless[0]!r}")

    def grammar(self) -> str:
        """One terminal: an intersection of what is wanted with the complements of what is not."""
        flag = "(?i)" if self.ignore_case else ""
        rules = [f"/(?s:.*){flag}{_quoted(word)}(?s:.*)/" for word in self.include]
        rules += [f"~/(?s:.*){flag}{_quoted(word)}(?s:.*)/" for word in self.exclude]
        return "start: TEXT\nTEXT: " + " & ".join(["/(?s:.*)/", *rules]) + "\n"


def _words(words: str | Sequence[str]) -> list[str]:
    listed = words.split("|") if isinstance(words, str) else list(words)
    return [word for word in dict.fromkeys(listed) if word]


def _quoted(word: str) -> str:
    """A word as a regular expression between slashes."""
    return escape(word).replace("\n", r"\n").replace("\r", r"\r")
