"""Random schemas, random models: every finished text is valid. Hostile input: an answer in bounded time."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import perf_counter
from typing import Any

import jsonschema
import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_jsonschema import from_schema

from ventris.draft import NGram
from ventris.engine.errors import VentrisError
from ventris.guide import Grammar, JsonSchema, Limits, Regex

from .tiny import TinyTarget, decode, tiny_tokenizer

SLOW = Limits(compile_seconds=5.0)
HEAD_ROOM = 10
"""A limit that holds ends a compilation near it; a slow machine may take this many times as long."""

SUBSCHEMA = "a schema"
RULES: dict[str, Any] = {
    "type": {"enum": ["string", "integer", "number", "boolean", "null", "array", "object"]},
    "enum": {"type": "array", "items": {"enum": [1, "a", "ab", None, True, [], {"a": 1}]}, "minItems": 1},
    "minimum": {"type": "integer", "minimum": -3, "maximum": 3},
    "maximum": {"type": "integer", "minimum": -3, "maximum": 3},
    "multipleOf": {"enum": [1, 2, 5]},
    "minLength": {"enum": [0, 1, 2]},
    "maxLength": {"enum": [1, 3, 9]},
    "pattern": {"enum": ["^a", "b$", "^[a-c]*$", "(?!x)"]},
    "required": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True},
    "properties": SUBSCHEMA,
    "additionalProperties": {"type": "boolean"},
    "items": SUBSCHEMA,
    "minItems": {"enum": [0, 1, 2]},
    "maxItems": {"enum": [1, 2, 3]},
    "uniqueItems": {"type": "boolean"},
    "not": SUBSCHEMA,
    "if": SUBSCHEMA,
    "then": SUBSCHEMA,
    "oneOf": SUBSCHEMA,
    "anyOf": SUBSCHEMA,
    "allOf": SUBSCHEMA,
}
"""A meta-schema for the value of each keyword."""


@st.composite
def schemas(draw: Any, depth: int = 3) -> Any:
    """Small schemas that use every kind of rule; most of them allow something."""
    below = schemas(depth - 1) if depth else st.booleans()
    keys = draw(st.lists(st.sampled_from(sorted(RULES)), min_size=int(depth == 3), max_size=3, unique=True))
    schema: dict[str, Any] = {}
    for key in keys:
        if key == "properties":
            schema[key] = draw(st.dictionaries(st.sampled_from("ab"), below, max_size=2))
        elif key in ("oneOf", "anyOf", "allOf"):
            schema[key] = draw(st.lists(below, min_size=1, max_size=3))
        else:
            schema[key] = draw(below if RULES[key] is SUBSCHEMA else from_schema(RULES[key]))
    return schema


def refusal(work: Callable[[], Any]) -> str:
    """The message with which something is refused; empty if it is not."""
    try:
        work()
    except VentrisError as error:
        return str(error)
    return ""


def check_random(schema: Any, seed: int) -> None:
    """Decode under a schema; what is called valid is so for both validators, and drafts change nothing."""
    guide = JsonSchema(schema)
    if refused := refusal(lambda: guide.bind(tiny_tokenizer())):
        assert "\n" not in refused
        return
    guide = guide.bind(tiny_tokenizer())
    target, settings = TinyTarget(seed=seed), {"tokens": 40, "temperature": 1.0, "seed": seed}
    done = decode([guide], target, may_fail=True, **settings)[0]
    drafted = decode([guide], target, NGram(), may_fail=True, **settings)[0]
    assert drafted.tokens == done.tokens
    assert drafted.valid == done.valid
    if done.error is not None:
        # Rules that contradict each other deep inside may leave no way on; the error names the guide.
        assert "json-schema" in done.error
    elif done.finish_reason == "stop" or done.valid:
        instance = json.loads(done.text)
        valid = jsonschema.Draft202012Validator(schema).is_valid(instance)
        assert valid == jsonschema_rs.is_valid(schema, instance)
        assert done.valid == valid
        assert valid or not guide.enforcement.enforced


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(schemas(), st.integers(0, 3))
def test_random_schemas_under_random_models(schema: Any, seed: int) -> None:
    check_random(schema, seed)


@pytest.mark.long
@settings(max_examples=3000, suppress_health_check=list(HealthCheck))
@given(schemas(), st.integers(0, 1000))
def test_many_random_schemas_under_random_models(schema: Any, seed: int) -> None:
    check_random(schema, seed)


def nested(levels: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def endless() -> Any:
    schema: dict[str, Any] = {"type": "array"}
    schema["items"] = schema
    return schema


HOSTILE: dict[str, Any] = {
    "nested repeats": lambda: Regex("((((a{0,999}){0,999}){0,999}){0,999}){0,999}", limits=SLOW),
    "states explode": lambda: Regex(".*(a.{30}b|c.{30}d|e.{40}f).*", limits=SLOW),
    "many words": lambda: Regex("|".join(f"w{i}x" for i in range(30_000)), limits=SLOW),
    "long regex": lambda: Regex("a" * 3_000_000, limits=SLOW),
    "deep regex": lambda: Regex("(" * 5000 + ")" * 5000, limits=SLOW),
    "counted": lambda: Regex("(.{1,5000}){1,5000}", limits=SLOW),
    "bad unicode": lambda: Regex("\ud800", limits=SLOW),
    "left recursion": lambda: Grammar('start: start start | "a"', limits=SLOW),
    "ambiguity": lambda: Grammar('start: a a a a a a a a\na: "x" a | "x" | ', limits=SLOW),
    "endless rule": lambda: Grammar("start: start", limits=SLOW),
    "deep gbnf": lambda: Grammar("root ::= " + "(" * 3000 + '"a"' + ")" * 3000, limits=SLOW),
    "self reference": lambda: JsonSchema({"$ref": "#"}, limits=SLOW),
    "paradox": lambda: JsonSchema({"not": {"$ref": "#"}}, limits=SLOW),
    "mutual": lambda: JsonSchema(
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, limits=SLOW
    ),
    "deep schema": lambda: JsonSchema(nested(5000), limits=SLOW),
    "deep text": lambda: JsonSchema("{" + '"items":{' * 100_000, limits=SLOW),
    "a loop of objects": lambda: JsonSchema(endless(), limits=SLOW),
    "large": lambda: JsonSchema({"enum": [f"value {i}" * 20 for i in range(20_000)]}, limits=SLOW),
    "many properties": lambda: JsonSchema(
        {"properties": {f"p{i}": {"type": "string"} for i in range(20_000)}}, limits=SLOW
    ),
    "product": lambda: JsonSchema(
        {
            "allOf": [
                {"anyOf": [{"properties": {f"k{i}{j}": {"type": "string"}}} for j in range(4)]}
                for i in range(10)
            ]
        },
        limits=SLOW,
    ),
    "oneOf of many": lambda: JsonSchema(
        {"oneOf": [{"required": [f"k{i}"]} for i in range(200)]}, limits=SLOW
    ),
    "nested oneOf": lambda: JsonSchema(one_of_nested(6), limits=SLOW),
    "divisors": lambda: JsonSchema(
        {"allOf": [{"type": "integer", "multipleOf": p} for p in (7, 11, 13, 17, 19, 23, 29)]}, limits=SLOW
    ),
    "large divisor": lambda: JsonSchema({"type": "integer", "multipleOf": 1_000_003}, limits=SLOW),
    "huge number": lambda: JsonSchema({"minimum": 10**400}, limits=SLOW),
    "remote": lambda: JsonSchema({"$ref": "http://192.0.2.1/schema.json"}, limits=SLOW),
    "file": lambda: JsonSchema({"$ref": "file:///etc/passwd"}, limits=SLOW),
    "slow pattern": lambda: JsonSchema({"type": "string", "pattern": "^(a+)+(?=b)$"}, limits=SLOW),
    "wrong kinds": lambda: JsonSchema(
        {"required": 3, "properties": [], "items": "x", "enum": {}}, limits=SLOW
    ),
}


def one_of_nested(levels: int) -> Any:
    schema: Any = {"required": ["a"]}
    for level in range(levels):
        schema = {"oneOf": [schema, {"required": [f"b{level}"]}, {"not": schema}]}
    return schema


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_ends_in_an_answer_or_one_line(name: str) -> None:
    started = perf_counter()
    guides: list[Any] = []
    refused = refusal(lambda: guides.append(HOSTILE[name]().bind(tiny_tokenizer())))
    assert "\n" not in refused
    if guides:
        done = decode(guides, tokens=12, temperature=1.0, may_fail=True)[0]
        assert done.error is None or "guide" in done.error
    assert perf_counter() - started < HEAD_ROOM * SLOW.compile_seconds


@pytest.mark.long
@settings(max_examples=5000, suppress_health_check=list(HealthCheck))
@given(
    st.text(alphabet="ab(){}[]|*+?^$\\.,019-&~:=\"'/<>#@!é\n", max_size=40),
    st.sampled_from([Regex, Grammar, JsonSchema]),
)
def test_random_text_as_a_language(text: str, kind: Any) -> None:
    assert "\n" not in refusal(lambda: kind(text, limits=SLOW).bind(tiny_tokenizer()))
