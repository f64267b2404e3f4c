"""A limit that one text passes ends that text alone."""

from __future__ import annotations

from typing import Any

import pytest
from torch import zeros

from ventris.guide import JsonSchema
from ventris.guide.hard_state import HardState
from ventris.guide.limits import GuideStopped, Limits

from .tiny import tiny_tokenizer

DEAR = {"multipleOf": 6.75, "minimum": -100000, "maximum": -10000, "not": {"multipleOf": 7}}
"""Tokens of such numbers are followed at once, while a mask of all of them takes work."""

MINUS, TWO, SEVEN = tiny_tokenizer().encode("-27")
WIDTH = tiny_tokenizer().vocab_size
VIEW: Any = type("View", (), {"end_ids": frozenset((2, 0))})


def dear_guide() -> JsonSchema:
    return JsonSchema(DEAR, forced=False, limits=Limits(step_fuel=1000)).bind(tiny_tokenizer())


def test_other_texts_of_the_grammar_go_on_where_they_are() -> None:
    guide = dear_guide()
    one, other = guide.start(VIEW), guide.start(VIEW)
    for state in (one, other):
        state.advance(MINUS)
    other.advance(TWO)
    with pytest.raises(GuideStopped, match="raise its limits"):
        one.adjust(zeros(WIDTH), VIEW)
    assert other.following([SEVEN])[0] == [SEVEN]
    other.advance(SEVEN)
    assert not other.broken
    later = guide.start(VIEW)
    later.advance(MINUS)
    assert later.following([TWO])[0] == [TWO]
    assert later.following([MINUS])[0] != [MINUS]


def test_a_copy_made_before_the_limit_was_passed_goes_on_too() -> None:
    guide = dear_guide()
    first = guide.start(VIEW)
    first.advance(MINUS)
    twin = first.fork()
    with pytest.raises(GuideStopped):
        first.adjust(zeros(WIDTH), VIEW)
    assert twin.fork().following([TWO])[0] == [TWO]
    with pytest.raises(GuideStopped):
        first.adjust(zeros(WIDTH), VIEW)


def test_drafters_ask_for_no_mask_again_where_one_passed_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    state = dear_guide().start(VIEW)
    state.advance(MINUS)
    assert not state.allowed(WIDTH).any()
    asked: list[int] = []
    monkeypatch.setattr(HardState, "_forbidden", lambda self, width: asked.append(width))
    assert not state.allowed(WIDTH).any()
    assert not asked
    assert state.following([TWO])[0] == [TWO]
