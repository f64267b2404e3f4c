"""Every rewritten rule against the reference validators, on all instances of a small pool."""

from __future__ import annotations

import itertools
import json
from typing import Any

import jsonschema
import jsonschema_rs
import pytest

from ventris.guide import JsonSchema

from .tiny import accepts

SCALARS = [None, True, False, 0, 1, 2, -3, 0.5, "", "a", "b", "ab", "é", "x" * 5]
OBJECTS = [
    dict(zip(keys, values, strict=True))
    for size in range(4)
    for keys in itertools.combinations("abc", size)
    for values in itertools.product([1, "a"], repeat=size)
]
ARRAYS: list[Any] = [[], [1], ["a"], [1, 1], [1, 2], ["a", 1], [[]], [{}]]
POOL = [*SCALARS, *OBJECTS, *ARRAYS]

A, B = {"required": ["a"]}, {"required": ["b"]}
ABC = {"properties": {"a": {}, "b": {}, "c": {}}}

EXACT: dict[str, Any] = {
    "not type": {"not": {"type": "string"}},
    "not types": {"not": {"type": ["object", "array", "number"]}},
    "not const": {"not": {"const": "a"}},
    "not enum": {"not": {"enum": ["a", "ab", 1, True, None]}},
    "not enum, strings": {"type": "string", "not": {"enum": ["", "a", "é"]}},
    "not empty": {"not": {"enum": [[], {}]}},
    "not bounds": {"not": {"minimum": 1, "maximum": 2}},
    "not exclusive": {"not": {"exclusiveMinimum": 1}},
    "not length": {"not": {"minLength": 1, "maxLength": 2}},
    "not items": {"not": {"minItems": 1}},
    "not required": {**ABC, "not": {"required": ["a", "b"]}},
    "not properties": {**ABC, "not": {"properties": {"a": {"const": 1}}}},
    "not anyOf": {**ABC, "not": {"anyOf": [A, B]}},
    "not allOf": {**ABC, "not": {"allOf": [A, {"not": B}]}},
    "not not": {"not": {"not": {"type": ["string", "null"]}}},
    "not true": {"anyOf": [{"not": True}, {"const": 1}]},
    "not false": {"not": False, "type": "null"},
    "not ref": {"$defs": {"n": {"type": "number"}}, "not": {"$ref": "#/$defs/n"}},
    "not oneOf": {**ABC, "type": "object", "not": {"oneOf": [A, B]}},
    "not if": {**ABC, "not": {"if": A, "then": B, "else": {"required": ["c"]}}},
    "not contains": {"type": "array", "not": {"contains": {"type": "string"}}},
    "not prefix": {"not": {"prefixItems": [{"type": "number"}]}},
    "oneOf, by type": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
    "oneOf, overlapping": {"oneOf": [{"type": "number", "minimum": 1}, {"type": "number", "maximum": 1}]},
    "oneOf, required": {**ABC, "type": "object", "oneOf": [A, B]},
    "oneOf, three": {**ABC, "type": "object", "oneOf": [A, B, {"required": ["c"]}]},
    "oneOf, tagged": {
        "type": "object",
        "properties": {"a": {}, "b": {}},
        "oneOf": [
            {"properties": {"a": {"const": 1}}, "required": ["a"]},
            {"properties": {"a": {"const": "a"}}, "required": ["a", "b"]},
        ],
    },
    "oneOf, same twice": {"oneOf": [{"type": "string"}, {"type": "string"}, {"type": "null"}]},
    "if then": {**ABC, "if": A, "then": B},
    "if else": {**ABC, "if": {"properties": {"a": {"const": 1}}, "required": ["a"]}, "else": B},
    "if then else": {**ABC, "type": "object", "if": A, "then": B, "else": {"required": ["c"]}},
    "dependencies": {
        **ABC,
        "dependencies": {"a": ["b"], "b": {"required": ["c"]}},
        "$schema": "http://json-schema.org/draft-07/schema#",
    },
    "dependentRequired": {**ABC, "dependentRequired": {"a": ["b", "c"]}},
    "dependentSchemas": {**ABC, "dependentSchemas": {"a": {"properties": {"b": {"type": "string"}}}}},
    "propertyNames": {"type": "object", "propertyNames": {"enum": ["a", "c"]}},
    "propertyNames, pattern": {"type": "object", "propertyNames": {"pattern": "^[ab]$"}},
    "propertyNames, none": {"propertyNames": False},
    "minProperties": {
        "type": "object",
        "properties": {"a": {}, "b": {}},
        "additionalProperties": False,
        "minProperties": 1,
    },
    "unevaluated": {"type": "object", "properties": {"a": {}}, "unevaluatedProperties": False},
    "recursion": {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"},
    "ref with siblings": {"$defs": {"s": {"type": "string"}}, "$ref": "#/$defs/s", "minLength": 2},
    "anchor": {"$defs": {"s": {"$anchor": "here", "type": "string"}}, "$ref": "#here"},
    "draft 4 bounds": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "number",
        "minimum": 1,
        "exclusiveMinimum": True,
    },
}
"""Rules that masks keep exactly."""

CHECKED: dict[str, Any] = {
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "contains": {"type": "array", "contains": {"type": "string"}},
    "not pattern": {"type": "string", "not": {"pattern": "a"}},
    "not integer": {"not": {"type": "integer"}},
    "lookahead": {"type": "string", "pattern": "^(?!a)"},
    "regex": {"type": "string", "format": "regex"},
    "maxProperties": {"type": "object", "properties": {"a": {}, "b": {}}, "maxProperties": 1},
    "not closed": {"not": {"type": "object", "additionalProperties": False}},
    "not const object": {"type": "object", "not": {"const": {"a": 1}}},
    "contains nothing": {"contains": False},
    "unevaluatedItems": {"prefixItems": [{"type": "number"}], "unevaluatedItems": False},
    "unevaluated beside allOf": {"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False},
}
"""Rules that the check at the end keeps."""


def verdicts(schema: Any, guide: JsonSchema) -> list[str]:
    """Instances on which the guide and the validators differ."""
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    reference = kind(schema, format_checker=kind.FORMAT_CHECKER)
    second = jsonschema_rs.validator_for(schema, validate_formats=True)
    wrong = []
    for instance in POOL:
        valid = reference.is_valid(instance)
        assert valid == second.is_valid(instance), f"the validators differ on {instance!r}"
        text = json.dumps(instance, ensure_ascii=False, separators=(",", ":"))
        if accepts(guide, text) != valid:
            wrong.append(f"{text} is {'valid' if valid else 'invalid'}")
    return wrong


@pytest.mark.parametrize("name", EXACT)
def test_rules_that_masks_keep(name: str) -> None:
    guide = JsonSchema(EXACT[name], strict=True)
    assert verdicts(EXACT[name], guide) == []


@pytest.mark.parametrize("name", CHECKED)
def test_rules_that_the_check_at_the_end_keeps(name: str) -> None:
    guide = JsonSchema(CHECKED[name])
    assert guide.enforcement.checked_at_end
    assert verdicts(CHECKED[name], guide) == []


def test_what_the_specification_gives_no_power_is_noted() -> None:
    guide = JsonSchema({"type": "string", "format": "colour"})
    assert guide.enforcement.enforced
    assert "colour" in str(guide.enforcement.not_rules[0])
    assert accepts(guide, '"anything"')


def test_uri_references_and_pointers_are_patterns() -> None:
    for name, good, bad in (
        (
            "uri-reference",
            ["", "a/b?c#d", "http://x.y/z", "//h/p", "#f", "mailto:a@b"],
            ["a b", "http://[", "\\"],
        ),
        ("json-pointer", ["", "/a/b~0", "/"], ["a", "/~2"]),
        ("relative-json-pointer", ["0", "1/a", "2#"], ["", "/a", "01"]),
    ):
        guide = JsonSchema({"type": "string", "format": name}, strict=True)
        assert [text for text in good if not accepts(guide, json.dumps(text))] == []
        assert [text for text in bad if accepts(guide, json.dumps(text))] == []
