"""The opposite of a schema, one keyword deep: again a schema, with ``not`` further inside."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

from ventris.guide.schema.source import Schema
from ventris.guide.schema.values import TYPES, other_values

Part = dict[str, Any]
Opposite = tuple[list[Part], bool]
"""Schemas of which a value must satisfy one, and whether no other value satisfies any of them."""

MOST_BRANCHES = 6
"""Branches of a ``oneOf`` whose opposite is spelled out."""

# The smallest value that can break a rule that has no opposite among the keywords.
_ROUGH: dict[str, Part] = {
    "pattern": {"type": "string"},
    "format": {"type": "string"},
    "multipleOf": {"type": "number"},
    "additionalProperties": {"type": "object", "minProperties": 1},
    "patternProperties": {"type": "object", "minProperties": 1},
    "propertyNames": {"type": "object", "minProperties": 1},
    "unevaluatedProperties": {"type": "object", "minProperties": 1},
    "uniqueItems": {"type": "array", "minItems": 2},
    "additionalItems": {"type": "array", "minItems": 1},
    "unevaluatedItems": {"type": "array", "minItems": 1},
    "dependentSchemas": {"type": "object", "minProperties": 1},
    "$dynamicRef": {},
    "$recursiveRef": {},
}
_HARMLESS: tuple[Schema, ...] = (True, {})


def opposite(schema: Part) -> Opposite:
    """Schemas that together allow what ``schema`` refuses.

    Subschemas are left as ``{"not": …}`` and rewritten when their turn comes. Where a rule has no exact
    opposite, the schemas allow more, and the second value says so.
    """
    parts: list[Part] = []
    exact = True
    for keyword, value in schema.items():
        rule = _OPPOSITES.get(keyword)
        if rule is not None:
            found, sure = rule(value, schema)
        elif keyword in _ROUGH and not refuses_nothing(keyword, value):
            found, sure = [_ROUGH[keyword]], False
        else:
            continue
        parts += found
        exact = exact and sure
    return parts, exact


def refuses_nothing(keyword: str, value: Any) -> bool:
    """True for ``uniqueItems: false``, ``additionalProperties: true`` and the like."""
    if keyword == "contains":
        return False  # whatever an item may be, an empty array has none
    return value is False if keyword == "uniqueItems" else value is True or value == {}


def _not(schema: Schema) -> Part:
    return {"not": schema}


def _type(value: Any, schema: Part) -> Opposite:
    named = {value} if isinstance(value, str) else set(value)
    others = [name for name in TYPES if name not in named]
    # Numbers that are no integers cannot be said.
    whole = "integer" in named and "number" not in named
    return ([{"type": others}] if others else []), not whole


def _values(value: Any, schema: Part) -> Opposite:
    return other_values(value)


def _const(value: Any, schema: Part) -> Opposite:
    return other_values([value])


def _bound(type_name: str, reverse: str, shift: int = 0) -> Callable[[Any, Part], Opposite]:
    def rule(value: Any, schema: Part) -> Opposite:
        if isinstance(value, bool) or (shift and value + shift < 0):
            return [], True
        return [{"type": type_name, reverse: value + shift if shift else value}], True

    return rule


def _minimum(value: Any, schema: Part) -> Opposite:
    reverse = "maximum" if schema.get("exclusiveMinimum") is True else "exclusiveMaximum"
    return [{"type": "number", reverse: value}], True


def _maximum(value: Any, schema: Part) -> Opposite:
    reverse = "minimum" if schema.get("exclusiveMaximum") is True else "exclusiveMinimum"
    return [{"type": "number", reverse: value}], True


def _required(value: Any, schema: Part) -> Opposite:
    return [{"type": "object", "properties": {key: False}} for key in value], True


def _properties(value: Any, schema: Part) -> Opposite:
    return [
        {"type": "object", "required": [key], "properties": {key: _not(below)}}
        for key, below in value.items()
        if below not in _HARMLESS
    ], True


def _items(value: Any, schema: Part) -> Opposite:
    if isinstance(value, list):
        return _prefix(value, schema)
    if value in _HARMLESS:
        return [], True
    first = len(schema.get("prefixItems", ()))
    return [{"type": "array", "minItems": first + 1}], value is False


def _prefix(value: Any, schema: Part) -> Opposite:
    return [
        {"type": "array", "minItems": place + 1, "prefixItems": [*[True] * place, _not(below)]}
        for place, below in enumerate(value)
        if below not in _HARMLESS
    ], True


def _contains(value: Any, schema: Part) -> Opposite:
    if "minContains" in schema or "maxContains" in schema:
        return [{"type": "array"}], False
    return [{"type": "array", "items": _not(value)}], True


def _all_of(value: Any, schema: Part) -> Opposite:
    return [_not(below) for below in value], True


def _any_of(value: Any, schema: Part) -> Opposite:
    return [{"allOf": [_not(below) for below in value]}], True


def _one_of(value: Any, schema: Part) -> Opposite:
    if len(value) > MOST_BRANCHES:
        return [{}], False
    none = {"allOf": [_not(below) for below in value]}
    return [none, *({"allOf": [*pair]} for pair in combinations(value, 2))], True


def _negation(value: Any, schema: Part) -> Opposite:
    return [{"allOf": [value]}], True


def _condition(value: Any, schema: Part) -> Opposite:
    parts = []
    if "then" in schema:
        parts.append({"allOf": [value, _not(schema["then"])]})
    if "else" in schema:
        parts.append({"allOf": [_not(value), _not(schema["else"])]})
    return parts, True


def _dependencies(value: Any, schema: Part) -> Opposite:
    parts = []
    for key, below in value.items():
        rule = {"required": below} if isinstance(below, list) else below
        parts.append({"type": "object", "required": [key], "allOf": [_not(rule)]})
    return parts, True


def _reference(value: Any, schema: Part) -> Opposite:
    return [_not({"$ref": value})], True


_OPPOSITES: dict[str, Callable[[Any, Part], Opposite]] = {
    "type": _type,
    "enum": _values,
    "const": _const,
    "minimum": _minimum,
    "maximum": _maximum,
    "exclusiveMinimum": _bound("number", "maximum"),
    "exclusiveMaximum": _bound("number", "minimum"),
    "minLength": _bound("string", "maxLength", -1),
    "maxLength": _bound("string", "minLength", 1),
    "minItems": _bound("array", "maxItems", -1),
    "maxItems": _bound("array", "minItems", 1),
    "minProperties": _bound("object", "maxProperties", -1),
    "maxProperties": _bound("object", "minProperties", 1),
    "required": _required,
    "properties": _properties,
    "items": _items,
    "prefixItems": _prefix,
    "contains": _contains,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _negation,
    "if": _condition,
    "dependencies": _dependencies,
    "dependentRequired": _dependencies,
    "$ref": _reference,
}
