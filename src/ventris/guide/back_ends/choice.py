"""Which back ends there are, and how what they compiled is read."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from ventris.engine.errors import BadInput
from ventris.guide.matcher import Matcher

BackEndName = Literal["llguidance", "xgrammar", "outlines-core"]
LLGUIDANCE: BackEndName = "llguidance"
XGRAMMAR: BackEndName = "xgrammar"
OUTLINES: BackEndName = "outlines-core"
ALL: tuple[BackEndName, ...] = (LLGUIDANCE, XGRAMMAR, OUTLINES)

EXTRAS = {XGRAMMAR: ("xgrammar", "xgrammar"), OUTLINES: ("outlines_core", "outlines")}
"""The package of each back end that is not always there, and the extra of Ventris that installs it."""


def is_installed(back_end: str) -> bool:
    """Whether a back end can be used here."""
    return back_end not in EXTRAS or find_spec(EXTRAS[back_end][0]) is not None


def check_back_end(back_end: str, able: tuple[BackEndName, ...], guide: str) -> None:
    """Refuse a back end that a guide has no use for, or that is not installed.

    Raises:
        BadInput: naming those there are, or the extra to install.
    """
    if back_end not in able:
        raise BadInput(f"guide {guide!r} has no back end {back_end!r}; it has: {', '.join(able)}")
    if not is_installed(back_end):
        extra = EXTRAS[back_end][1]
        raise BadInput(f"back end {back_end!r} is not installed; run: pip install 'ventris[{extra}]'")


def read_matcher(
    back_end: str,
    built: bytes,
    tokens: list[bytes],
    special: frozenset[int],
    end_ids: frozenset[int],
    end: int,
) -> Matcher:
    """The matcher in what the compile worker built.

    Args:
        tokens: Bytes of every token.
        special: Tokens that are no text, those that end it among them.
        end: The one of them that the worker knows.
    """
    if back_end == XGRAMMAR:
        from ventris.guide.back_ends.xgrammar_matcher import XGrammarMatcher

        return XGrammarMatcher.read(built, tokens, special, end_ids, end)
    from ventris.guide.back_ends.outlines_matcher import OutlinesMatcher

    return OutlinesMatcher.read(built, len(tokens), end_ids)
