"""Hard guides tell drafters what may come, so that fewer drafts are in vain."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ventris.draft import DraftModel
from ventris.guide import JsonSchema, Regex
from ventris.guide.limits import Limits

from .test_checked_state import CHECKED
from .tiny import PROMPT, TinyTarget, decode, tiny_tokenizer

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "tags": {"type": "array", "items": {"enum": ["ab", "red"]}},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
}


def test_more_drafts_are_accepted_and_the_text_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [PROMPT, [4, 5], [60] * 20, [7, 8, 7, 8]]

    def drafted() -> tuple[list[list[int]], int]:
        # A drafter that has never seen JSON.
        drafter = DraftModel(TinyTarget(seed=9), width=2, samples=0)
        done = decode([JsonSchema(SCHEMA, forced=False)], drafter=drafter, prompts=prompts)
        return [each.tokens for each in done], sum(each.stats.steps for each in done)

    with_guide, fewer = drafted()
    monkeypatch.setattr(DraftModel, "guided", False)
    without, more = drafted()
    assert with_guide == without
    assert fewer < 0.8 * more


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["[0-9]{1,3}(ab)?", "(true|false|name)*", *CHECKED]), st.data())
def test_one_token_may_follow_if_it_is_among_those_that_may(name: str, data: Any) -> None:
    guide: Any = JsonSchema(CHECKED[name]) if name in CHECKED else Regex(name)
    request: Any = type("View", (), {"end_ids": frozenset((2, 0))})
    state = guide.bind(tiny_tokenizer()).start(request)
    width = tiny_tokenizer().vocab_size + 5
    for _ in range(6):
        allowed = state.allowed(width)
        assert [token in state.following([token])[0] for token in range(width)] == allowed.tolist()
        some = data.draw(st.lists(st.integers(0, width - 1), max_size=3))
        found, complete = state.following(some)
        if complete:
            assert found == allowed.nonzero()[0].tolist()
        else:
            assert found == [token for token in some if allowed[token]]
        if not allowed.any() or state.ended:
            break
        state.advance(data.draw(st.sampled_from([int(t) for t in allowed.nonzero()[0]])))
    state.advance(width - 1)
    assert state.broken
    assert state.allowed(width).all()
    assert state.following([3])[0] == [3]


def test_a_mask_that_passes_a_limit_leaves_the_text_unharmed() -> None:
    schema = {"multipleOf": 6.75, "minimum": -100000, "maximum": -10000, "not": {"multipleOf": 7}}
    guide = JsonSchema(schema, forced=False, limits=Limits(step_fuel=1000))
    request: Any = type("View", (), {"end_ids": frozenset((2, 0))})
    state = guide.bind(tiny_tokenizer()).start(request)
    minus, two = tiny_tokenizer().encode("-2")
    state.advance(minus)
    assert state.following([two])[0] == [two]
    assert not state.allowed(tiny_tokenizer().vocab_size).any()
    assert state.following([two])[0] == [two]
    state.advance(two)
    assert not state.broken
