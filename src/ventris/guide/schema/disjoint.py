"""Whether two schemas share no value: then ``oneOf`` is ``anyOf``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ventris.guide.schema.places import Resolver, enter, follow
from ventris.guide.schema.source import Schema
from ventris.guide.schema.values import TYPES, key_of, type_names, type_of

DEPTH = 5
"""How deep properties are compared."""


@dataclass(slots=True)
class _Facts:
    """What must hold of every value of a schema; a subset of what the schema says."""

    types: set[str] = field(default_factory=lambda: set(TYPES))
    values: dict[str, Any] | None = None
    required: set[str] = field(default_factory=set)
    properties: dict[str, list[tuple[Schema, Resolver]]] = field(default_factory=dict)
    closed: bool = False
    low: float = float("-inf")
    high: float = float("inf")

    def lacks(self, key: str) -> bool:
        """True if no value has the property."""
        known = self.properties.get(key)
        return any(below is False for below, _ in known) if known else self.closed


def disjoint(
    first: Schema, second: Schema, resolver: Resolver, types: Iterable[str], depth: int = DEPTH
) -> bool:
    """True if surely no value of ``types`` satisfies both."""
    return _disjoint([(first, resolver)], [(second, resolver)], set(types), depth)


def _disjoint(
    first: list[tuple[Schema, Resolver]], second: list[tuple[Schema, Resolver]], types: set[str], depth: int
) -> bool:
    if depth == 0:
        return False
    one, other = _Facts(), _Facts()
    for facts, schemas in ((one, first), (other, second)):
        for schema, resolver in schemas:
            if schema is False or not _gather(facts, schema, resolver, depth):
                return True
    shared = one.types & other.types & {("number" if name == "integer" else name) for name in types}
    return all(_disjoint_as(name, one, other, depth) for name in shared)


def _disjoint_as(name: str, one: _Facts, other: _Facts, depth: int) -> bool:
    if one.values is not None and other.values is not None:
        common = one.values.keys() & other.values.keys()
        if not any(type_of(one.values[key]) == name for key in common):
            return True
    if name == "number":
        return one.low > other.high or other.low > one.high
    if name != "object":
        return False
    for a, b in ((one, other), (other, one)):
        if any(b.lacks(key) for key in a.required):
            return True
    return any(
        _disjoint(one.properties[key], other.properties[key], set(TYPES), depth - 1)
        for key in (one.required & one.properties.keys() & other.properties.keys())
        if key in other.required
    )


def _gather(facts: _Facts, schema: Schema, resolver: Resolver, depth: int) -> bool:
    """Add what a schema says; False if it allows nothing."""
    if isinstance(schema, bool):
        return schema
    resolver = enter(resolver, schema)
    facts.types &= {("number" if name == "integer" else name) for name in type_names(schema)}
    for keyword in ("enum", "const"):
        if keyword in schema:
            listed = schema["enum"] if keyword == "enum" else [schema["const"]]
            values = {key_of(value): value for value in listed}
            known = values if facts.values is None else facts.values
            facts.values = {key: value for key, value in values.items() if key in known}
            facts.types &= {type_of(value) for value in facts.values.values()}
    if isinstance(schema.get("required"), list):
        facts.required |= set(schema["required"])
    for key, below in schema.get("properties", {}).items():
        facts.properties.setdefault(key, []).append((below, resolver))
    if schema.get("additionalProperties") is False and not schema.get("patternProperties"):
        named = schema.get("properties", {}).keys()
        for key in [key for key in facts.required if key not in named]:
            facts.properties.setdefault(key, []).append((False, resolver))
        # Another part of the schema may name further properties, which this one then refuses.
        facts.closed = True
    if _is_number(schema.get("minimum")):
        facts.low = max(facts.low, schema["minimum"])
    if _is_number(schema.get("maximum")):
        facts.high = min(facts.high, schema["maximum"])
    if depth > 1:
        for below in schema.get("allOf", ()):
            if not _gather(facts, below, resolver, depth - 1):
                return False
        if isinstance(schema.get("$ref"), str):
            found, there = follow(resolver, schema["$ref"])
            return _gather(facts, found, there, depth - 1)
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
