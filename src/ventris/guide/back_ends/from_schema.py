"""A rewritten schema as a language, for back ends whose own reading of schemas is not exact.

The converters of xgrammar and outlines-core were audited and are not used. That of xgrammar writes blanks of
its own into free values, lets bare control characters pass in strings of bounded length, and ignores
``allOf`` and what stands beside ``enum`` and ``anyOf``. That of outlines-core closes every object, ignores
bounds, joins the parts of ``allOf`` and leaves keys unescaped. Here a keyword that is neither in
:data:`ENFORCED` nor in :data:`AT_END_ONLY` is refused by name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from time import perf_counter
from typing import Any

from ventris.engine.errors import BadInput
from ventris.guide.back_ends.conjunction import Plain, both
from ventris.guide.back_ends.from_regex import from_regex
from ventris.guide.back_ends.integers import UNBOUNDED, integers
from ventris.guide.back_ends.known_formats import PATTERNS
from ventris.guide.back_ends.language import (
    DIGIT,
    EMPTY,
    NOTHING,
    Language,
    Node,
    Rule,
    Text,
    chars,
    either,
    optional,
    repeat,
    row,
    size,
)
from ventris.guide.back_ends.quoted import other_names, quoted, spelled, strings
from ventris.guide.limits import Limits
from ventris.guide.schema.notes import Enforcement, Notebook
from ventris.guide.schema.source import Schema
from ventris.guide.schema.values import TYPES, type_of

ENFORCED = frozenset(
    {
        *("type", "const", "enum", "minLength", "maxLength", "pattern", "format", "minimum", "maximum"),
        *("exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems", "items", "prefixItems"),
        *("properties", "additionalProperties", "patternProperties", "required", "minProperties"),
        *("maxProperties", "additionalItems", "anyOf", "allOf", "$ref", "$defs"),
    }
)
"""Keywords that become part of the language, in all of their uses or in some; see the notes."""

AT_END_ONLY = frozenset({"multipleOf"})
"""Keywords that only the check at the end keeps."""

MOST_WAYS = 64
"""Alternatives that the conjunction of several choices is written out into."""

SHORT = 100
"""Parts of a node that is rather written twice than made a rule, which costs xgrammar time at every mask."""

WHITE = repeat(chars(" \n\r\t"), 0, 64)
SEPARATORS: dict[str, tuple[Node, Node, Node]] = {
    "compact": (Text(","), Text(":"), EMPTY),
    "spaced": (Text(", "), Text(": "), EMPTY),
    "flexible": (row(WHITE, Text(","), WHITE), row(WHITE, Text(":"), WHITE), WHITE),
}
"""Between items, behind keys, and inside brackets."""

NUMBER = row(
    UNBOUNDED,
    optional(row(Text("."), repeat(DIGIT, 1))),
    optional(row(chars("eE"), optional(chars("+-")), repeat(DIGIT, 1))),
)
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
BY_TYPE = {
    "number": (*BOUNDS, "multipleOf"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "object": (
        *("properties", "additionalProperties", "patternProperties", "required"),
        *("minProperties", "maxProperties"),
    ),
}


def from_schema(
    schema: Schema, noted: Enforcement, whitespace: str, limits: Limits
) -> tuple[Language, Enforcement]:
    """The JSON texts that a rewritten schema allows, or more of them.

    Args:
        noted: What the rewriting left to the check at the end already.
        whitespace: As :class:`ventris.guide.JsonSchema` takes it.

    Returns:
        The language, and what it does not enforce in all.

    Raises:
        BadInput: naming a keyword or a format that is neither enforced nor checked, or a limit.
    """
    builder = _Builder(schema, whitespace, limits)
    try:
        start = builder.node(schema, "")
        language = Language(start, builder.rules)
    except (TypeError, ValueError, OverflowError, RecursionError, AttributeError) as error:
        raise BadInput(
            "the schema holds a value of the wrong kind, or nests too deeply for this back end"
        ) from error
    if start == NOTHING or NOTHING in builder.rules.values():
        raise BadInput("the schema, or a part of it that leads to itself, allows nothing")
    found = builder.notes.enforcement()
    return language, Enforcement((*noted.checked_at_end, *found.checked_at_end), noted.not_rules)


class _Builder:
    def __init__(self, root: Schema, whitespace: str, limits: Limits) -> None:
        self.notes = Notebook()
        self.rules: dict[str, Node] = {}
        self.comma, self.colon, self.gap = SEPARATORS[whitespace]
        self._limits = limits
        self._definitions = root.get("$defs", {}) if isinstance(root, dict) else {}
        self._open: dict[str, str | None] = {}
        self._nodes = 0
        self._until = perf_counter() + limits.compile_seconds

    def node(self, schema: Schema, place: str) -> Node:
        """The texts of one schema; what nests in itself becomes a rule."""
        if schema is True:
            schema = {}
        if schema is False:
            return NOTHING
        self._nodes += 1
        self._check_time()
        if self._nodes > self._limits.rewritten_nodes:
            raise BadInput(
                f"the schema grows past {self._limits.rewritten_nodes:,} subschemas when it is written out "
                "(limit rewritten_nodes); simplify it"
            )
        if list(schema) == ["allOf"] and len(schema["allOf"]) == 1:
            return self.node(schema["allOf"][0], place)
        key = json.dumps({name: value for name, value in schema.items() if name != "$defs"})
        if key in self._open:
            name = self._open[key] or f"nested{len(self._open)}x{len(self.rules)}"
            self._open[key] = name
            # Held until it is known, so that no other rule gets the name.
            self.rules.setdefault(name, NOTHING)
            return Rule(name)
        self._open[key] = None
        made = either(*(self._plain(way, place) for way in self._ways(schema, place)))
        rule = self._open.pop(key)
        if rule is None:
            return made
        self.rules[rule] = made
        return Rule(rule)

    def _check_time(self) -> None:
        if perf_counter() > self._until:
            raise BadInput(
                f"writing it out takes more than {self._limits.compile_seconds:g} s (limit compile_seconds); "
                "simplify it"
            )

    def _shared(self, node: Node) -> Node:
        """A part that is named in several places, so that it is written once."""
        if node in (EMPTY, NOTHING) or isinstance(node, Rule | Text):
            return node
        name = f"shared{len(self.rules)}"
        self.rules[name] = node
        return Rule(name)

    def _twice(self, node: Node) -> Node:
        """A part that stands first and again behind commas.

        Long ones are written once, or nested lists would double with every level.
        """
        return node if size(node) <= SHORT else self._shared(node)

    # A schema as alternatives without references, ``allOf`` and ``anyOf``.

    def _ways(self, schema: Schema, place: str, followed: frozenset[str] = frozenset()) -> list[Plain]:
        if isinstance(schema, bool):
            return [{}] if schema else []
        for keyword in schema:
            if keyword not in ENFORCED and keyword not in AT_END_ONLY:
                raise BadInput(
                    f"{keyword} at {place or '/'} is not enforced by this back end; "
                    "take it out, or leave backend at llguidance"
                )
        own = {k: v for k, v in schema.items() if k not in ("anyOf", "allOf", "$ref", "$defs", "const")}
        if isinstance(own.get("items"), list):
            own["prefixItems"], own["items"] = own["items"], own.pop("additionalItems", True)
        own.pop("additionalItems", None)
        if "const" in schema:
            own = both({"enum": [schema["const"]]}, own)[0] or {"enum": []}
        ways = [own]
        for below in schema.get("allOf", []):
            ways = self._product(ways, self._ways(below, place, followed), place)
        if "anyOf" in schema:
            branches = [way for below in schema["anyOf"] for way in self._ways(below, place, followed)]
            ways = self._product(ways, branches, place)
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/$defs/")
            if name in followed:
                # It says itself again, or nothing that ends; the check at the end tells.
                self.notes.check(place, "$ref", "it leads to itself")
            else:
                target = self._ways(self._definitions[name], place, followed | {name})
                ways = self._product(ways, target, place)
        return ways

    def _product(self, ways: list[Plain], others: list[Plain], place: str) -> list[Plain]:
        if len(ways) * len(others) > MOST_WAYS and len(ways) > 1 and len(others) > 1:
            self.notes.check(place, "anyOf", "several choices together are too many alternatives")
            return ways if len(ways) >= len(others) else others
        found: list[Plain] = []
        for way in ways:
            self._check_time()
            for other in others:
                merged, left = both(way, other)
                for keyword in left:
                    self.notes.check(place, keyword, "two rules of this kind hold at once")
                if merged is not None:
                    found.append(merged)
        return found

    # One alternative, type by type.

    def _plain(self, schema: Plain, place: str) -> Node:
        if "enum" in schema:
            return self._listed(schema, place)
        named = schema.get("type", list(TYPES))
        types = [named] if isinstance(named, str) else named
        if "number" in types:
            types = [name for name in types if name != "integer"]
        makers: dict[str, Callable[[], Node]] = {
            "null": lambda: Text("null"),
            "boolean": lambda: either(Text("true"), Text("false")),
            "integer": lambda: self._integer(schema, place),
            "number": lambda: self._number(schema, place),
            "string": lambda: self._string(schema, place),
            "array": lambda: self._array(schema, place),
            "object": lambda: self._object(schema, place),
        }
        if not set(types) <= set(makers):
            raise BadInput(f"type at {place or '/'} is {named!r}, which is no type")
        return either(*(makers[name]() for name in types))

    def _listed(self, schema: Plain, place: str) -> Node:
        """Values of an ``enum`` that pass the rules beside it; deeper rules are left to the end."""
        kept: list[Node] = []
        for value in schema["enum"]:
            kind = type_of(value)
            allowed = schema.get("type", kind)
            allowed = [allowed] if isinstance(allowed, str) else allowed
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            if kind not in allowed and not (kind == "number" and whole and "integer" in allowed):
                continue
            for keyword in BY_TYPE.get(kind, ()):
                if keyword in schema and (kind, keyword) not in _SIMPLE:
                    self.notes.check(place, keyword, "it stands beside an enum")
            rules = ((word, rule) for (of, word), rule in _SIMPLE.items() if of == kind and word in schema)
            if all(rule(value, schema[word]) for word, rule in rules):
                kept.append(self._value(value))
        return either(*kept)

    def _value(self, value: Any) -> Node:
        if isinstance(value, dict):
            return self._members(
                [row(Text(spelled(k)), self.colon, self._value(v)) for k, v in value.items()]
            )
        if isinstance(value, list):
            return self._bracketed("[", [self._value(item) for item in value], "]")
        return Text(spelled(value))

    def _members(self, members: list[Node]) -> Node:
        return self._bracketed("{", members, "}")

    def _bracketed(self, opening: str, items: list[Node], closing: str) -> Node:
        parts = [part for item in items for part in (self.comma, item)][1:]
        return row(Text(opening), self.gap, *parts, *([self.gap] if parts else []), Text(closing))

    def _integer(self, schema: Plain, place: str) -> Node:
        least = [math.ceil(schema["minimum"])] if "minimum" in schema else []
        if "exclusiveMinimum" in schema:
            least.append(math.floor(schema["exclusiveMinimum"]) + 1)
        most = [math.floor(schema["maximum"])] if "maximum" in schema else []
        if "exclusiveMaximum" in schema:
            most.append(math.ceil(schema["exclusiveMaximum"]) - 1)
        if schema.get("multipleOf", 1) != 1:
            self.notes.check(place, "multipleOf", "this back end does not divide")
        return integers(max(least, default=None), min(most, default=None))

    def _number(self, schema: Plain, place: str) -> Node:
        for keyword in BY_TYPE["number"]:
            if keyword in schema:
                self.notes.check(place, keyword, "this back end bounds and divides whole numbers only")
        return NUMBER

    def _string(self, schema: Plain, place: str) -> Node:
        patterns = [schema["pattern"]] if "pattern" in schema else []
        if "format" in schema:
            if schema["format"] not in PATTERNS:
                raise BadInput(
                    f"format {schema['format']!r} at {place or '/'} is not enforced by this back end; "
                    "leave it out, or leave backend at llguidance"
                )
            patterns.insert(0, PATTERNS[schema["format"]])
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        if not patterns:
            return strings(int(least), None if most is None else int(most))
        if len(patterns) > 1:
            self.notes.check(place, "pattern", "this back end keeps a format or a pattern, not both")
        for keyword in ("minLength", "maxLength"):
            if keyword in schema:
                self.notes.check(place, keyword, "this back end keeps a pattern or a length, not both")
        try:
            return quoted(from_regex(patterns[0], whole=False, ascii_classes=True))
        except BadInput as error:
            try:
                re.compile(patterns[0])
            except re.error as wrong:
                raise BadInput(f"pattern {patterns[0]!r} at {place or '/'}: {wrong}") from None
            self.notes.check(place, "pattern", str(error).split("; ")[0])
            return strings()

    def _array(self, schema: Plain, place: str) -> Node:
        least, most = int(schema.get("minItems", 0)), schema.get("maxItems")
        first = [self.node(below, f"{place}/prefixItems") for below in schema.get("prefixItems", [])]
        if most is not None:
            first = first[: int(most)]
        behind: Node = NOTHING
        if most is None or int(most) > len(first):
            behind = self._twice(self.node(schema.get("items", True), f"{place}/items"))
        room = None if most is None else int(most) - len(first)
        # From the last item to the first: what may follow once so many are there.
        rest = repeat(row(self.comma, behind), max(least - len(first), 0), room)
        if not first:
            further = repeat(row(self.comma, behind), max(least - 1, 0), None if room is None else room - 1)
            filled = NOTHING if room == 0 else row(behind, further)
            return self._closed("[", filled, least == 0, "]")
        for place_of in range(len(first) - 1, 0, -1):
            begun = row(self.comma, first[place_of], rest)
            rest = begun if least > place_of else either(EMPTY, begun)
        return self._closed("[", row(first[0], rest), least == 0, "]")

    def _closed(self, opening: str, filled: Node, may_be_empty: bool, closing: str) -> Node:
        """Brackets around something, or around nothing."""
        full = NOTHING if filled == NOTHING else row(Text(opening), self.gap, filled, self.gap, Text(closing))
        bare = row(Text(opening), self.gap, Text(closing))
        return either(full, bare) if may_be_empty else full

    def _object(self, schema: Plain, place: str) -> Node:
        rest: Schema = schema.get("additionalProperties", True)
        patterns = schema.get("patternProperties", {})
        named = dict(schema.get("properties", {}))
        required = schema.get("required", [])
        free_name: Node | None = None
        if patterns:
            free_name = self._pattern_names(patterns, named, rest, place)
            if free_name is None:
                self.notes.check(place, "patternProperties", "its names cannot be told from others")
                rest = True
            else:
                rest = next(iter(patterns.values()))
        if free_name is not None and required:
            self.notes.check(place, "required", "it names what a pattern rules")
        if free_name is None:
            named |= {name: rest for name in required if name not in named}
        for keyword in ("minProperties", "maxProperties"):
            if keyword in schema and (named or (keyword == "minProperties" and schema[keyword] > 1)):
                self.notes.check(place, keyword, "this back end does not count named properties")
        values = {
            name: self._shared(self.node(below, f"{place}/properties/{name}"))
            for name, below in named.items()
        }
        free = self._twice(self.node(rest, f"{place}/additionalProperties"))
        member = row(free_name or (other_names(list(named)) if named else strings()), self.colon, free)
        if not named:
            least, most = int(schema.get("minProperties", 0)), schema.get("maxProperties")
            if most == 0 or member == NOTHING:
                return self._closed("{", NOTHING, least == 0, "}")
            end = None if most is None else int(most) - 1
            filled = row(member, repeat(row(self.comma, member), max(least - 1, 0), end))
            return self._closed("{", filled, least == 0, "}")
        further = EMPTY if member == NOTHING else repeat(row(self.comma, member))
        alone = NOTHING if member == NOTHING else row(member, further)
        # ``begun`` follows another member, ``fresh`` is the first; both know what may still come.
        begun, fresh, may_be_empty = further, alone, True
        for name in reversed(list(named)):
            entry = row(Text(spelled(name)), self.colon, values[name])
            begun = self._shared(begun)
            here = NOTHING if values[name] == NOTHING else row(entry, begun)
            if name in required:
                fresh, may_be_empty = here, False
                begun = NOTHING if here == NOTHING else row(self.comma, here)
            else:
                fresh = either(here, fresh)
                begun = begun if here == NOTHING else row(optional(row(self.comma, entry)), begun)
        return self._closed("{", fresh, may_be_empty, "}")

    def _pattern_names(
        self, patterns: dict[str, Schema], named: dict[str, Schema], rest: Schema, place: str
    ) -> Node | None:
        """Names that one pattern rules, where no others are allowed and none has a rule of its own."""
        if named or rest is not False or len(patterns) != 1:
            return None
        try:
            return quoted(from_regex(next(iter(patterns)), whole=False, ascii_classes=True))
        except BadInput:
            return None


_SIMPLE: dict[tuple[str, str], Callable[[Any, Any], bool]] = {
    ("number", "minimum"): lambda value, bound: value >= bound,
    ("number", "maximum"): lambda value, bound: value <= bound,
    ("number", "exclusiveMinimum"): lambda value, bound: value > bound,
    ("number", "exclusiveMaximum"): lambda value, bound: value < bound,
    ("string", "minLength"): lambda value, bound: len(value) >= bound,
    ("string", "maxLength"): lambda value, bound: len(value) <= bound,
    ("array", "minItems"): lambda value, bound: len(value) >= bound,
    ("array", "maxItems"): lambda value, bound: len(value) <= bound,
    ("object", "required"): lambda value, names: all(name in value for name in names),
    ("object", "minProperties"): lambda value, bound: len(value) >= bound,
    ("object", "maxProperties"): lambda value, bound: len(value) <= bound,
}
"""Rules that are read off a value."""
