"""Texts that end in time: whenever an ending fits, the text is whole, under every drafter and model."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ventris.engine.errors import BadInput, Incompatible
from ventris.guide import Choice, Format, Grammar, HardGuide, JsonSchema, Regex, Words
from ventris.guide.closing import find_ending
from ventris.guide.vocabulary import vocabulary_of

from .test_composition import DRAFTERS, OTHERS, SCHEMA
from .test_fuzz import refusal, schemas
from .tiny import PROMPT, TinyTarget, decode, tiny_tokenizer


def shortest(guide: HardGuide) -> list[int] | None:
    tokenizer = tiny_tokenizer()
    bound = guide.bind(tokenizer)
    assert bound._matcher is not None
    return find_ending(bound._matcher, vocabulary_of(tokenizer), 1000)


def fields(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


STRING = {"type": "string"}
ENDINGS: dict[str, tuple[HardGuide, int]] = {
    "strings": (JsonSchema(fields(**{f"field {i}": STRING for i in range(9)})), 140),
    "nested": (
        JsonSchema(fields(a=fields(b={"type": "array", "items": fields(x=STRING), "minItems": 2}))),
        40,
    ),
    "long string": (JsonSchema({"type": "string", "minLength": 100}), 110),
    "patterns": (
        JsonSchema(fields(a={"pattern": "^[A-Z]{3}-[0-9]{4}$", **STRING}, b={"type": "number"})),
        30,
    ),
    "formats": (
        JsonSchema(
            fields(**{f: {**STRING, "format": f} for f in ("date-time", "email", "uuid", "ipv4", "uri")})
        ),
        170,
    ),
    "recursion": (
        JsonSchema(
            {"$defs": {"n": fields(k={"type": "array", "items": {"$ref": "#/$defs/n"}})}, "$ref": "#/$defs/n"}
        ),
        8,
    ),
    "a number": (JsonSchema({"type": "integer", "minimum": 1000, "multipleOf": 7}), 5),
    "a loop": (Regex("(ab)*c"), 1),
    "letters": (Regex("[a-z]{40}(foo|ba)"), 45),
    "brackets": (Grammar('start: "a" start "b" | "(" start ")" | "1"'), 1),
    "holes": (Format("Name: {n:str}\nAge: {a:int} {b:word}"), 30),
    "choice": (Choice(["a long text", "true", "name"]), 2),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_short_ending_is_found(name: str) -> None:
    guide, longest = ENDINGS[name]
    ending = shortest(guide)
    assert ending is not None
    assert len(ending) <= longest
    text = tiny_tokenizer().decode(ending)
    if isinstance(guide, JsonSchema):
        jsonschema.validate(json.loads(text), guide.schema)


SETTINGS: dict[str, dict[str, Any]] = {"greedy": {}, "coupled": {"temperature": 1.0, "seed": 3}}
IN_TIME: dict[str, Any] = {
    "schema": lambda **o: JsonSchema(SCHEMA, **o),
    "grammar": lambda **o: Grammar('start: item ("," item)*\nitem: "name" | "[" start "]"', **o),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", IN_TIME)
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_every_text_ends_in_time_under_every_drafter(drafter: str, name: str, setting: str) -> None:
    ending = shortest(IN_TIME[name]())
    assert ending is not None
    for spare in (0, 4):
        limits = {"tokens": len(ending) + 1 + spare, "prompts": [PROMPT, OTHERS[0]], **SETTINGS[setting]}
        drafted = decode([IN_TIME[name](close="in-time")], drafter=DRAFTERS[drafter](), **limits)
        assert all(done.finish_reason == "stop" and done.valid for done in drafted)
        plain = decode([IN_TIME[name](close="in-time", forced=False)], **limits)
        assert [done.tokens for done in drafted] == [done.tokens for done in plain]


def test_without_pressure_greedy_text_is_that_of_free_closing() -> None:
    free, timed = (decode([JsonSchema(SCHEMA, close=c)], tokens=200)[0] for c in ("free", "in-time"))
    assert free.finish_reason == "stop"
    assert timed.tokens == free.tokens


def check_in_time(schema: Any, seed: int, spare: int) -> bool:
    """Decode under a schema as tight as ``spare`` tells; false where there is nothing to check."""
    guides: list[JsonSchema] = []
    if refusal(lambda: guides.append(JsonSchema(schema).bind(tiny_tokenizer()))):
        return False
    ending = JsonSchema(schema, close="in-time").bind(tiny_tokenizer())._opening
    if ending is None:
        return False
    limits = {"tokens": len(ending) + 1 + spare, "temperature": 1.0, "seed": seed}
    done = decode([JsonSchema(schema, close="in-time")], TinyTarget(seed=seed), **limits)[0]
    assert done.finish_reason == "stop", (schema, done.text)
    assert done.valid, (schema, done.text)
    assert jsonschema.Draft202012Validator(schema).is_valid(json.loads(done.text)), (schema, done.text)
    return True


@settings(max_examples=15, suppress_health_check=list(HealthCheck), deadline=None)
@given(schemas(), st.integers(0, 3), st.sampled_from([0, 1, 3, 10, 40]))
def test_random_schemas_end_in_time(schema: Any, seed: int, spare: int) -> None:
    check_in_time(schema, seed, spare)


@pytest.mark.long
@settings(max_examples=1000, suppress_health_check=list(HealthCheck), deadline=None)
@given(schemas(), st.integers(0, 1000), st.sampled_from([0, 1, 3, 10, 40]))
def test_many_random_schemas_end_in_time(schema: Any, seed: int, spare: int) -> None:
    check_in_time(schema, seed, spare)


def test_running_out_of_tokens_is_told() -> None:
    cut = decode([JsonSchema(SCHEMA)], tokens=6)[0]
    assert (cut.finish_reason, cut.valid) == ("length", False)


def test_what_cannot_close_in_time_is_refused() -> None:
    late = decode([Regex("x{8}", close="in-time")], tokens=6, may_fail=True)[0]
    assert "needs 9 tokens and max_new_tokens is 6" in str(late.error)
    with pytest.raises(BadInput, match="close is 'never'"):
        Regex("a", close="never")  # type: ignore[arg-type]
    with pytest.raises(Incompatible, match="closes in time on its own"):
        decode([Regex("a+", close="in-time"), Words(exclude=["b"])])
    with pytest.raises(Incompatible, match="min_new_tokens"):
        decode([Regex("a+", close="in-time")], min_new_tokens=3)
