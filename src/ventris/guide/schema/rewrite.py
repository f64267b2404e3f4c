"""A schema in the part of JSON Schema that the back end enforces.

The result allows what the schema allows, or more; where it allows more, a note says which rule the finished
text must be checked for. Only the keywords that the back end knows are written, so nothing is dropped by it
unseen. References become names of definitions, since rewriting moves what they point to.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

from ventris.engine.errors import BadInput
from ventris.guide.limits import Limits
from ventris.guide.schema.disjoint import disjoint
from ventris.guide.schema.formats import BACK_END, CHECKED, PATTERNS, UNSUPPORTED
from ventris.guide.schema.negate import opposite, refuses_nothing
from ventris.guide.schema.notes import Enforcement, Notebook
from ventris.guide.schema.places import Resolver, enter, follow, ref_stands_alone, resolver_of
from ventris.guide.schema.source import Schema
from ventris.guide.schema.values import type_names
from ventris.guide.schema.wrong_kind import wrong_kind

COPIED = ("type", "const", "enum", "minLength", "maxLength", "minItems", "maxItems", "required", "multipleOf")
SUBSCHEMA = ("additionalProperties", "additionalItems")
LISTS = ("prefixItems", "anyOf")
MAPS = ("properties", "patternProperties")
UNMASKED = ("contains", "uniqueItems", "$dynamicRef", "$recursiveRef", "unevaluatedItems")
"""Rules for which there is no mask."""

NEIGHBOURS = (
    *("allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas"),
    *("$ref", "$dynamicRef", "$recursiveRef"),
)
"""Keywords that can evaluate properties beside ``properties``."""

MOST_BRANCHES = 12
"""Branches of a ``oneOf`` from which overlaps are excluded one by one."""

KNOWN_DRAFTS = "json-schema.org/"

LOOKAROUND = re.compile(r"\(\?(=|!|<[=!])|(?<!\\)\\[1-9]|\\[kK]<")


def rewrite(root: Schema, limits: Limits, relaxed: Collection[str] = ()) -> tuple[Schema, Enforcement]:
    """Rewrite a schema.

    Args:
        relaxed: Keywords to leave to the check at the end, after the back end could not take them.

    Returns:
        The rewritten schema and what it does not enforce.

    Raises:
        BadInput: naming a keyword that can be neither enforced nor checked, a reference that leads outside,
            a value of the wrong kind, or the limit that the result passes.
    """
    try:
        return _Rewriter(root, limits, relaxed).run()
    except (AttributeError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        # Strangers write schemas like `{"properties": null}`, and put them where only a reference leads.
        raise BadInput(wrong_kind(root)) from error


class _Rewriter:
    def __init__(self, root: Schema, limits: Limits, relaxed: Collection[str]) -> None:
        self.root = root
        self.limits = limits
        self.relaxed = relaxed
        self.notes = Notebook()
        self.alone = ref_stands_alone(root)
        self._names: dict[tuple[str, int], str] = {}
        self._waiting: deque[tuple[str, str, Schema, Resolver]] = deque()
        self._nodes = 0

    def run(self) -> tuple[Schema, Enforcement]:
        resolver = resolver_of(self.root)
        draft = self.root.get("$schema", KNOWN_DRAFTS) if isinstance(self.root, dict) else KNOWN_DRAFTS
        if not isinstance(draft, str) or KNOWN_DRAFTS not in draft:
            self.notes.no_rule("", "$schema", "it names no draft that is known; Draft 2020-12 is taken")
        rewritten = self.schema(self.root, resolver, "")
        definitions: dict[str, Schema] = {}
        while self._waiting:
            name, kind, target, there = self._waiting.popleft()
            if kind == "is":
                definitions[name] = self.schema(target, there, f"/{name}")
            else:
                definitions[name] = self.negated(target, there, f"/{name}", "not")
        if isinstance(rewritten, bool) or not definitions:
            return rewritten, self.notes.enforcement()
        return {**rewritten, "$defs": definitions}, self.notes.enforcement()

    def schema(self, schema: Schema, resolver: Resolver, place: str) -> Schema:
        """One schema and all below it, but not what its references lead to."""
        self._nodes += 1
        if self._nodes > self.limits.rewritten_nodes:
            raise BadInput(
                f"the schema grows past {self.limits.rewritten_nodes:,} subschemas when it is rewritten "
                "(limit rewritten_nodes); simplify its oneOf, not and if"
            )
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            at = place or "/"
            raise BadInput(f"a schema is an object or a boolean, not {str(schema)[:40]!r} (at {at})")
        resolver = enter(resolver, schema)
        if self.alone and isinstance(schema.get("$ref"), str):
            return self._reference("is", schema["$ref"], resolver)
        rewritten = self._plain(schema, resolver, place)
        further = [*self._counts(schema, rewritten, place), *self._further(schema, resolver, place)]
        further = [part for part in further if part is not True]
        if False in further:
            return False
        if further:
            rewritten["allOf"] = further
        return rewritten

    # Keywords that stay what they are.

    def _plain(self, schema: dict[str, Any], resolver: Resolver, place: str) -> dict[str, Any]:
        out = {keyword: schema[keyword] for keyword in COPIED if keyword in schema}
        for keyword in SUBSCHEMA:
            if keyword in schema:
                out[keyword] = self.schema(schema[keyword], resolver, f"{place}/{keyword}")
        for keyword in LISTS:
            if keyword in schema:
                out[keyword] = self._list(schema[keyword], resolver, f"{place}/{keyword}")
        for keyword in MAPS:
            if keyword in schema:
                out[keyword] = self._map(schema[keyword], resolver, f"{place}/{keyword}")
        if isinstance(schema.get("items"), list):
            out["items"] = self._list(schema["items"], resolver, f"{place}/items")
        elif "items" in schema:
            out["items"] = self.schema(schema["items"], resolver, f"{place}/items")
        if "patternProperties" in self.relaxed and schema.get("patternProperties"):
            self.notes.check(place, "patternProperties", "its patterns overlap, or cannot be told apart")
            out.pop("patternProperties")
            out.pop("additionalProperties", None)
        self._bounds(schema, out)
        self._unevaluated(schema, out, resolver, place)
        self._pattern(schema, out, place)
        self._format(schema, out, place)
        for keyword in UNMASKED:
            if keyword in schema and not refuses_nothing(keyword, schema[keyword]):
                self.notes.check(place, keyword, "no mask can keep it")
        return out

    def _list(self, schemas: Any, resolver: Resolver, place: str) -> list[Schema]:
        if not isinstance(schemas, list):
            raise BadInput(f"{place} must be a list of schemas")
        return [self.schema(below, resolver, f"{place}/{index}") for index, below in enumerate(schemas)]

    def _map(self, schemas: Any, resolver: Resolver, place: str) -> dict[str, Schema]:
        if not isinstance(schemas, Mapping):
            raise BadInput(f"{place} must be an object of schemas")
        return {key: self.schema(below, resolver, f"{place}/{key}") for key, below in schemas.items()}

    def _bounds(self, schema: dict[str, Any], out: dict[str, Any]) -> None:
        """Bounds of numbers; Draft 4 says ``exclusiveMinimum: true``."""
        for plain, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            bound, strict = schema.get(plain), schema.get(exclusive)
            if strict is True and bound is not None:
                out[exclusive] = bound
                continue
            if bound is not None:
                out[plain] = bound
            if strict is not None and not isinstance(strict, bool):
                out[exclusive] = strict

    def _counts(self, schema: dict[str, Any], out: dict[str, Any], place: str) -> list[Schema]:
        """How many properties: the back end counts only where none of those named is optional."""
        listed = schema.get("required")
        required = listed if isinstance(listed, list) else []
        named = schema.get("properties", {})
        closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
        optional = [key for key in named if key not in required]
        parts: list[Schema] = []
        for keyword in ("minProperties", "maxProperties"):
            if keyword not in schema:
                continue
            count = schema[keyword]
            implied = count <= len(required) if keyword == "minProperties" else closed and count >= len(named)
            if implied:
                continue
            if not optional and "minProperties" not in self.relaxed:
                out[keyword] = count
            elif keyword == "minProperties" and count == 1 and closed:
                parts.append({"anyOf": [{"type": list(_NO_OBJECT)}, *({"required": [key]} for key in named)]})
            else:
                self.notes.check(place, keyword, "some of the named properties are optional")
        return parts

    def _unevaluated(
        self, schema: dict[str, Any], out: dict[str, Any], resolver: Resolver, place: str
    ) -> None:
        """``unevaluatedProperties`` is ``additionalProperties`` where nothing else evaluates properties."""
        rule = schema.get("unevaluatedProperties", True)
        if rule in (True, {}) or "additionalProperties" in schema:
            return
        if any(keyword in schema for keyword in NEIGHBOURS):
            self.notes.check(place, "unevaluatedProperties", "other keywords evaluate properties, too")
        else:
            out["additionalProperties"] = self.schema(rule, resolver, f"{place}/unevaluatedProperties")

    def _pattern(self, schema: dict[str, Any], out: dict[str, Any], place: str) -> None:
        if not isinstance(schema.get("pattern"), str):
            return
        if LOOKAROUND.search(schema["pattern"]) or "pattern" in self.relaxed:
            try:
                re.compile(schema["pattern"])
            except re.error as error:
                raise BadInput(f"pattern {schema['pattern']!r} (at {place or '/'}): {error}") from None
            self.notes.check(place, "pattern", "it uses look-around or another thing that no automaton has")
        else:
            out["pattern"] = schema["pattern"]

    def _format(self, schema: dict[str, Any], out: dict[str, Any], place: str) -> None:
        name = schema.get("format")
        if not isinstance(name, str) or "string" not in type_names(schema):
            return
        if name in BACK_END:
            out["format"] = name
        elif name in UNSUPPORTED:
            raise BadInput(
                f"format {name!r} (at {place or '/'}) is not supported; leave it out or write it as a pattern"
            )
        elif name in CHECKED:
            self.notes.check(place, f"format {name!r}", "no automaton can tell it")
        elif name not in PATTERNS:
            self.notes.no_rule(place, f"format {name!r}", "JSON Schema does not define it")

    # Keywords that become something else; all of these must hold besides.

    def _further(self, schema: dict[str, Any], resolver: Resolver, place: str) -> list[Schema]:
        parts: list[Schema] = []
        if "allOf" in schema:
            parts += self._list(schema["allOf"], resolver, f"{place}/allOf")
        if isinstance(schema.get("$ref"), str):
            parts.append(self._reference("is", schema["$ref"], resolver))
        if schema.get("format") in PATTERNS and "string" in type_names(schema):
            parts.append({"pattern": PATTERNS[schema["format"]]})
        if "not" in schema:
            parts.append(self._not(schema["not"], resolver, place))
        if "oneOf" in schema:
            parts.append(self._one_of(schema, resolver, place))
        if "if" in schema and ("then" in schema or "else" in schema):
            parts.append(self._condition(schema, resolver, place))
        for keyword in ("dependencies", "dependentRequired", "dependentSchemas"):
            for key, below in schema.get(keyword, {}).items():
                parts.append(self._dependency(keyword, key, below, resolver, place))
        if schema.get("propertyNames", True) not in (True, {}):
            parts.append(self._names_rule(schema, place))
        return parts

    def _not(self, schema: Schema, resolver: Resolver, place: str) -> Schema:
        if "not" in self.relaxed:
            self.notes.check(place, "not", "saying it otherwise is too large for the back end")
            return True
        return self.negated(schema, resolver, place, "not")

    def negated(self, schema: Schema, resolver: Resolver, place: str, keyword: str) -> Schema:
        """The opposite of a schema, or something wider, noted under ``keyword``."""
        if isinstance(schema, bool):
            return not schema
        resolver = enter(resolver, schema)
        if isinstance(schema.get("$ref"), str) and (self.alone or len(schema) == 1):
            return self._reference("not", schema["$ref"], resolver)
        parts, exact = opposite(schema)
        if not exact:
            self.notes.check(place, keyword, "some part of it has no opposite that a mask can keep")
        if {} in parts:
            return True
        if not parts:
            return False
        return self.schema(parts[0] if len(parts) == 1 else {"anyOf": parts}, resolver, f"{place}/{keyword}")

    def _one_of(self, schema: dict[str, Any], resolver: Resolver, place: str) -> Schema:
        branches = schema["oneOf"]
        if not isinstance(branches, list):
            raise BadInput(f"{place}/oneOf must be a list of schemas")
        types = type_names(schema)
        overlaps = [
            [
                other
                for place_of, other in enumerate(branches)
                if place_of != index and not disjoint(branch, other, resolver, types)
            ]
            for index, branch in enumerate(branches)
        ]
        rewritten = self._list(branches, resolver, f"{place}/oneOf")
        if not any(overlaps):
            return {"anyOf": rewritten}
        if "oneOf" in self.relaxed or len(branches) > MOST_BRANCHES:
            self.notes.check(place, "oneOf", "its branches overlap, and keeping them apart is too large")
            return {"anyOf": rewritten}
        apart: list[Schema] = []
        for index, (branch, others) in enumerate(zip(rewritten, overlaps, strict=True)):
            rest = [self.negated(other, resolver, f"{place}/oneOf/{index}", "oneOf") for other in others]
            if False not in rest and branch is not False:
                apart.append({"allOf": [branch, *(part for part in rest if part is not True)]})
        return {"anyOf": apart} if apart else False

    def _condition(self, schema: dict[str, Any], resolver: Resolver, place: str) -> Schema:
        then = self.schema(schema.get("then", True), resolver, f"{place}/then")
        otherwise = self.schema(schema.get("else", True), resolver, f"{place}/else")
        if "if" in self.relaxed:
            self.notes.check(place, "if", "saying it otherwise is too large for the back end")
            return {"anyOf": [then, otherwise]}
        condition = self.schema(schema["if"], resolver, f"{place}/if")
        unless = self.negated(schema["if"], resolver, place, "if")
        ways = [[condition, then], [unless, otherwise]]
        return _any([_all(way) for way in ways])

    def _dependency(self, keyword: str, key: str, below: Any, resolver: Resolver, place: str) -> Schema:
        if "dependencies" in self.relaxed:
            self.notes.check(place, keyword, "saying it otherwise is too large for the back end")
            return True
        if isinstance(below, str):
            below = [below]
        if isinstance(below, list):
            rule: Schema = {"required": below}
        else:
            rule = self.schema(below, resolver, f"{place}/{keyword}/{key}")
        return _any([{"properties": {key: False}}, rule])

    def _names_rule(self, schema: dict[str, Any], place: str) -> Schema:
        """``propertyNames`` as ``patternProperties``, where the names' rule is one pattern or a list."""
        rule = schema["propertyNames"]
        if rule is False:
            return {"anyOf": [{"type": list(_NO_OBJECT)}, {"type": "object", "additionalProperties": False}]}
        pattern = _names_pattern(rule)
        apart = not any(keyword in schema for keyword in ("properties", "patternProperties", "required"))
        if pattern is not None and apart and schema.get("additionalProperties", True) in (True, {}):
            return {"patternProperties": {pattern: True}, "additionalProperties": False}
        self.notes.check(place, "propertyNames", "it is more than a pattern, or other rules name properties")
        return True

    def _reference(self, kind: str, reference: str, resolver: Resolver) -> Schema:
        """A reference to the rewritten target, or to its opposite."""
        target, there = follow(resolver, reference)
        if isinstance(target, bool):
            return target if kind == "is" else not target
        key = (kind, id(target))
        if key not in self._names:
            self._names[key] = f"{kind}{len(self._names)}"
            self._waiting.append((self._names[key], kind, target, there))
        return {"$ref": f"#/$defs/{self._names[key]}"}


_NO_OBJECT = ("null", "boolean", "number", "string", "array")


def _all(parts: list[Schema]) -> Schema:
    if False in parts:
        return False
    rest = [part for part in parts if part is not True]
    return {"allOf": rest} if rest else True


def _any(parts: list[Schema]) -> Schema:
    if True in parts:
        return True
    rest = [part for part in parts if part is not False]
    return {"anyOf": rest} if rest else False


def _names_pattern(rule: Any) -> str | None:
    from ventris.guide.regex import escape

    rules = {key: value for key, value in rule.items() if key != "type"} if isinstance(rule, dict) else {}
    if rule.get("type", "string") != "string" or len(rules) != 1:
        return None
    keyword, value = next(iter(rules.items()))
    if keyword == "pattern" and isinstance(value, str) and not LOOKAROUND.search(value):
        return value
    names = {"enum": value, "const": [value]}.get(keyword)
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return "^(" + "|".join(map(escape, names)) + ")$"
    return None
