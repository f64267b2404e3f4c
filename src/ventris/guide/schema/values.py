"""JSON values and their types, and schemas for everything but some values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from ventris.guide.regex import escape

TYPES = ("null", "boolean", "number", "string", "array", "object")
"""The types that share no value; an integer is a number."""

LONGEST_EXCEPTION = 4000
"""Letters of all strings together that may be excluded by a pattern."""


def type_of(value: Any) -> str:
    """The JSON type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def key_of(value: Any) -> str:
    """Equal for values that JSON Schema holds to be equal."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        return "[" + ",".join(map(key_of, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{key_of(value[key])}" for key in sorted(value)) + "}"
    return json.dumps(value)


def type_names(schema: dict[str, Any]) -> set[str]:
    """What ``type`` allows; all types where it is missing."""
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    return set(named) if isinstance(named, list) else {*TYPES, "integer"}


def other_values(values: Sequence[Any]) -> tuple[list[dict[str, Any]], bool]:
    """Schemas that together allow every value but the given ones, and whether they allow none of these."""
    by_type: dict[str, list[Any]] = {}
    for value in values:
        by_type.setdefault(type_of(value), []).append(value)
    parts: list[dict[str, Any]] = [{"type": [name for name in TYPES if name not in by_type]}]
    exact = True
    if len(truths := set(by_type.get("boolean", ()))) == 1:
        parts.append({"const": not truths.pop()})
    parts += _other_numbers(by_type.get("number", ()))
    if strings := by_type.get("string"):
        short = sum(map(len, strings)) <= LONGEST_EXCEPTION
        parts.append({"type": "string", **({"pattern": f"^{_other_strings(strings)}$"} if short else {})})
        exact = short
    for name, size in (("array", "minItems"), ("object", "minProperties")):
        if name in by_type:
            only_empty = not any(by_type[name])
            parts.append({"type": name, size: 1} if only_empty else {"type": name})
            exact = exact and only_empty
    return [part for part in parts if part.get("type") != []], exact


def _other_numbers(values: Iterable[float]) -> list[dict[str, Any]]:
    """The open intervals between the values."""
    known = sorted(set(values))
    if not known:
        return []
    edges = [{"exclusiveMinimum": low, "exclusiveMaximum": high} for low, high in pairwise(known)]
    bounds = [{"exclusiveMaximum": known[0]}, *edges, {"exclusiveMinimum": known[-1]}]
    return [{"type": "number", **bound} for bound in bounds]


def _other_strings(strings: Iterable[str]) -> str:
    """A regular expression for all strings but the given ones: it leaves their trie at some letter."""
    words = sorted(set(strings))
    return _leaving(words, 0)


def _leaving(words: list[str], depth: int) -> str:
    """How to go on, behind ``depth`` common letters, to something that is none of ``words``."""
    complete = bool(words) and len(words[0]) == depth
    branches: dict[str, list[str]] = {}
    for word in words[complete:]:
        branches.setdefault(word[depth], []).append(word)
    if not branches:
        return r"[\s\S]+"
    letters = "".join("\\" + c if c in r"\]^-[&~" else c for c in branches)
    ways = [rf"[^{letters}][\s\S]*"]
    for letter, below in branches.items():
        if len(below) == 1:
            ways.append(escape(letter) + _leaving_word(below[0][depth + 1 :]))
        else:
            ways.append(escape(letter) + _leaving(below, depth + 1))
    return "(" + "|".join(ways) + (")" if complete else ")?")


def _leaving_word(rest: str) -> str:
    """As :func:`_leaving` for one word, without recursion, since words may be long."""
    pattern = r"[\s\S]+"
    for letter in reversed(rest):
        excluded = "\\" + letter if letter in r"\]^-[&~" else letter
        pattern = rf"([^{excluded}][\s\S]*|{escape(letter)}{pattern})?"
    return pattern
