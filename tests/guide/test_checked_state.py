"""Rules that no mask keeps: a text that ends keeps them all the same."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ventris.engine.errors import BadInput
from ventris.guide import JsonSchema, Limits, ToolCalls
from ventris.guide.checked_state import CheckedState
from ventris.guide.hard_state import HardState
from ventris.guide.vocabulary import vocabulary_of

from .test_composition import DRAFTERS
from .tiny import PROMPT, TinyTarget, accepts, decode, tiny_tokenizer

UNIQUE = {"type": "array", "items": {"enum": [1, 2, 12]}, "uniqueItems": True, "minItems": 2}
CHECKED: dict[str, Any] = {
    "a number": {"type": "integer", "not": {"multipleOf": 3}, "minimum": 0},
    "an array": UNIQUE,
    "an object": {
        "type": "object",
        "properties": {
            "a": {"enum": [1, 2, 12]},
            "b": {"type": "integer", "minimum": 1, "not": {"multipleOf": 3}},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    # Behind a "0" no digit can follow, so that it is refused with the bracket that it forces.
    "a digit": {
        "type": "object",
        "properties": {"b": {"type": "integer", "not": {"multipleOf": 3}}},
        "required": ["b"],
        "additionalProperties": False,
    },
    "a string": {"type": "string", "not": {"pattern": "a"}},
    "a nested array": {"type": "object", "properties": {"x": UNIQUE}, "required": ["x"]},
}


def breaks(schema: Any, text: str) -> bool:
    return not jsonschema.Draft202012Validator(schema).is_valid(json.loads(text))


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 5}])
def test_a_text_that_ends_keeps_what_no_mask_can(name: str, sampling: dict[str, Any]) -> None:
    guide = JsonSchema(CHECKED[name])
    assert guide.bind(tiny_tokenizer()).checks_text
    ended = 0
    for seed in range(6):
        [done] = decode([guide], TinyTarget(seed), **sampling)
        if done.finish_reason == "stop":
            ended += 1
            assert done.valid
            assert not breaks(CHECKED[name], done.text)
        else:
            assert done.finish_reason == "length"
            assert not done.valid
    assert ended >= 2


def test_without_the_check_such_texts_end_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JsonSchema, "satisfied_meanwhile", lambda guide, texts: [True] * len(texts))
    done = [
        decode([JsonSchema(schema)], TinyTarget(seed))[0] for schema in CHECKED.values() for seed in range(6)
    ]
    ended = [completion for completion in done if completion.finish_reason == "stop"]
    assert any(not completion.valid for completion in ended)


DEAD_ENDS: dict[str, Any] = {
    "its last letter": {"enum": ["ab", "red", "rex"], "not": {"pattern": "b|e"}},
    "broken long before": {"type": "string", "pattern": "^[ab]{3}$", "not": {"pattern": "a|b"}},
    "a number at its bound": {"type": "integer", "minimum": 10, "maximum": 12, "not": {"enum": [10, 11, 12]}},
    "two items": {**UNIQUE, "items": {"const": 1}, "maxItems": 2},
}


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 5}])
@pytest.mark.parametrize("name", DEAD_ENDS)
def test_what_could_only_end_broken_stops_with_an_error(name: str, sampling: dict[str, Any]) -> None:
    guide = JsonSchema(DEAD_ENDS[name])
    rules = guide.bind(tiny_tokenizer()).unmasked
    assert rules
    for drafter in DRAFTERS.values():
        [done] = decode([guide], drafter=drafter(), may_fail=True, **sampling)
        assert done.finish_reason == "error"
        assert done.valid is False
        assert done.error is not None
        assert "would end the text with a rule broken that no mask keeps" in done.error
        assert f"({', '.join(rules)})" in done.error


@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("name", CHECKED)
def test_drafts_and_forced_text_change_nothing(name: str, drafter: str) -> None:
    prompts = [PROMPT, [1, 50, 60], [9] * 12]
    for sampling in ({}, {"temperature": 1.0, "seed": 3}):
        plain = JsonSchema(CHECKED[name], forced=False)
        expected = [decode([plain], prompts=[prompt], **sampling)[0].tokens for prompt in prompts]
        drafted = decode(
            [JsonSchema(CHECKED[name])], drafter=DRAFTERS[drafter](), prompts=prompts, **sampling
        )
        assert [completion.tokens for completion in drafted] == expected


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(CHECKED)), st.integers(0, 2**16))
def test_the_shortcut_is_what_the_mask_leaves(name: str, seed: int) -> None:
    request: Any = type("View", (), {"end_ids": frozenset((2, 0))})
    state = JsonSchema(CHECKED[name]).bind(tiny_tokenizer()).start(request)
    assert isinstance(state, CheckedState)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(25):
        row = 4 * torch.randn(tiny_tokenizer().vocab_size, generator=generator)
        row[[2, 0]] += 3
        shortcut = state.best(row.numpy())
        token = int(state.adjust(row.clone(), None).argmax())
        assert shortcut in (None, token)
        if token in (2, 0):
            break
        state.advance(token)


def test_forks_go_on_independently() -> None:
    request: Any = type("View", (), {"end_ids": frozenset((2, 0))})
    state = JsonSchema(UNIQUE).bind(tiny_tokenizer()).start(request)
    for token in tiny_tokenizer().encode("[1,1"):
        state.advance(token)
    twin = state.fork()
    for token in tiny_tokenizer().encode("2"):
        twin.advance(token)
    end = tiny_tokenizer().encode("]")[0]
    assert state.spoils(end)
    assert not twin.spoils(end)


def test_a_number_that_overflows_is_not_called_valid() -> None:
    guide = JsonSchema({"type": "number", "not": {"multipleOf": 1}}).bind(tiny_tokenizer())
    assert guide.satisfied(b"0.5")
    assert not guide.satisfied(b"-1e999")
    assert not guide.satisfied(b"3")


def test_valid_texts_are_taken_and_others_are_not() -> None:
    assert accepts(JsonSchema(UNIQUE), "[1,2]")
    assert not accepts(JsonSchema(UNIQUE), "[1,1]")
    assert accepts(JsonSchema(UNIQUE, whitespace="flexible"), "[ 1, 2 ]")
    assert not accepts(JsonSchema(UNIQUE, whitespace="flexible"), "[ 1, 1 ]")


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("tokens", [14, 20, 40])
def test_in_time_ends_with_all_rules_kept(name: str, tokens: int) -> None:
    guide = JsonSchema(CHECKED[name], close="in-time")
    for seed in range(4):
        [done] = decode([guide], TinyTarget(seed), tokens=tokens, may_fail=True)
        if done.error is not None:
            assert "cannot close in time: the shortest text that was found needs" in done.error
            assert tokens < 40
            continue
        assert done.finish_reason == "stop"
        assert done.valid
        assert not breaks(CHECKED[name], done.text)


def test_a_slow_check_is_made_once_and_then_only_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    guide = JsonSchema(UNIQUE, limits=Limits(check_seconds=0.25)).bind(tiny_tokenizer())
    asked = []

    def faults(texts: Any, schema: str, formats: Any, limits: Limits) -> list[str]:
        asked.append(limits.compile_seconds)
        raise BadInput("it takes more than 0.25 s")

    monkeypatch.setattr(vocabulary_of(tiny_tokenizer()).checker, "faults", faults)
    assert guide.satisfied_meanwhile([b"[1,1]"]) == [True]
    assert guide.satisfied_meanwhile([b"[1,1,1]", b"[2,2]"]) == [True, True]
    assert asked == [0.25]
    # The check at the end has a worker of its own.
    assert not guide.satisfied(b"[1,1]")


def test_many_endings_are_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    request: Any = type("View", (), {"end_ids": frozenset((2, 0))})
    guide = JsonSchema({"type": "string", "not": {"pattern": "x$"}}).bind(tiny_tokenizer())
    state = guide.start(request)
    asked = []
    checks = guide.satisfied_meanwhile
    monkeypatch.setattr(guide, "satisfied_meanwhile", lambda texts: asked.append(len(texts)) or checks(texts))
    for token in tiny_tokenizer().encode('"ax'):
        state.advance(token)
    ends = [t for t, spelled in enumerate(tiny_tokenizer().vocabulary_bytes) if spelled == b'"']
    mask = state.adjust(torch.zeros(tiny_tokenizer().vocab_size), None)
    assert all(mask[token] == -torch.inf for token in ends)
    assert mask[tiny_tokenizer().encode("a")[0]] == 0
    assert len(asked) == 1
    # The same place again costs nothing.
    state.adjust(torch.zeros(tiny_tokenizer().vocab_size), None)
    assert len(asked) == 1


def test_a_broken_tool_call_may_end_and_is_told() -> None:
    request: Any = type("View", (), {"end_ids": frozenset((2, 0))})
    parameters = {"type": "object", "properties": {"x": UNIQUE}, "required": ["x"]}
    guide = ToolCalls([{"name": "f", "parameters": parameters}], "required", style="hermes")
    state = guide.bind(tiny_tokenizer()).start(request)
    assert type(state) is HardState
    call = '<tool_call>\n{"name": "f", "arguments": {"x": [1, 1]}}\n</tool_call>'
    for token in tiny_tokenizer().encode(call):
        state.advance(token)
    assert not state.broken
    assert not state.valid


def test_where_the_mask_keeps_all_nothing_is_checked() -> None:
    request: Any = type("View", (), {"end_ids": frozenset((2, 0))})
    assert type(JsonSchema({"type": "boolean"}).bind(tiny_tokenizer()).start(request)) is HardState
