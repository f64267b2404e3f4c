"""Two plain schemas as one that says both, where one can."""

from __future__ import annotations

from typing import Any

from ventris.guide.schema.source import Schema
from ventris.guide.schema.values import TYPES, key_of

GREATEST = ("minLength", "minItems", "minProperties", "minimum", "exclusiveMinimum")
LEAST = ("maxLength", "maxItems", "maxProperties", "maximum", "exclusiveMaximum")
OBJECT = frozenset({"properties", "additionalProperties"})
ARRAY = frozenset({"items", "prefixItems"})

Plain = dict[str, Any]


def both(one: Plain, other: Plain) -> tuple[Plain | None, list[str]]:
    """What both allow, and the keywords of ``other`` that had to be left out; ``None`` if it is nothing."""
    out, left = dict(one), list[str]()
    for keyword, value in other.items():
        if keyword in OBJECT or keyword in ARRAY:
            continue
        if keyword == "type":
            out["type"] = _types(out.get("type"), value)
            if not out["type"]:
                return None, []
        elif keyword in GREATEST:
            out[keyword] = max(out.get(keyword, value), value)
        elif keyword in LEAST:
            out[keyword] = min(out.get(keyword, value), value)
        elif keyword == "required":
            out["required"] = list(dict.fromkeys([*out.get("required", []), *value]))
        elif keyword == "enum" and "enum" in out:
            known = set(map(key_of, value))
            out["enum"] = [item for item in out["enum"] if key_of(item) in known]
        elif out.setdefault(keyword, value) != value:
            left.append(keyword)
    if OBJECT & other.keys():
        if "patternProperties" in one or "patternProperties" in other:
            left += [keyword for keyword in sorted(OBJECT) if _taken_over(out, other, keyword)]
        elif OBJECT & one.keys():
            _objects(out, one, other)
        else:
            out |= {keyword: other[keyword] for keyword in other if keyword in OBJECT}
    if ARRAY & other.keys():
        if ARRAY & one.keys():
            _arrays(out, one, other)
        else:
            out |= {keyword: other[keyword] for keyword in other if keyword in ARRAY}
    return out, left


def _taken_over(out: Plain, other: Plain, keyword: str) -> bool:
    """Nothing of one side's rules about names may be read beside those of the other."""
    out.pop("additionalProperties", None)
    return keyword in other


def _types(one: Any, other: Any) -> list[str]:
    first = [one] if isinstance(one, str) else list(TYPES) if one is None else list(one)
    second = [other] if isinstance(other, str) else list(other)
    kept = [name for name in first if name in second or (name == "integer" and "number" in second)]
    return [*kept, *(["integer"] if "number" in first and "integer" in second else [])]


def _all(*parts: Schema) -> Schema:
    if any(part is False for part in parts):
        return False
    kept = [part for part in parts if part is not True and part != {}]
    return kept[0] if len(kept) == 1 else {"allOf": kept} if kept else True


def _objects(out: Plain, one: Plain, other: Plain) -> None:
    rest = (one.get("additionalProperties", True), other.get("additionalProperties", True))
    sides = (one.get("properties", {}), other.get("properties", {}))
    names = dict.fromkeys([*sides[0], *sides[1]])
    out["properties"] = {
        name: _all(*(side.get(name, other_rule) for side, other_rule in zip(sides, rest, strict=True)))
        for name in names
    }
    out["additionalProperties"] = _all(*rest)


def _arrays(out: Plain, one: Plain, other: Plain) -> None:
    rest = (one.get("items", True), other.get("items", True))
    sides = (one.get("prefixItems", []), other.get("prefixItems", []))
    out["prefixItems"] = [
        _all(*(side[place] if place < len(side) else rule for side, rule in zip(sides, rest, strict=True)))
        for place in range(max(map(len, sides)))
    ]
    out["items"] = _all(*rest)
