"""Type, default and bounds of a pydantic field in words, for tables and pages."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo


def type_text(field: FieldInfo) -> str:
    """The type as a user would write it; what may be left out does not count."""
    return _type(field.annotation)


def default_text(field: FieldInfo) -> str:
    """The default; ``required`` where there is none to fall back on, empty where nothing is the default."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def bounds_text(field: FieldInfo) -> str:
    """The range of a number, such as ``1 to 256``, ``≥ 0`` or ``> 0, ≤ 1``."""
    rules = {
        name: getattr(rule, name)
        for rule in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(rule, name, None) is not None
    }
    if set(rules) == {"ge", "le"}:
        return f"{rules['ge']:g} to {rules['le']:g}"
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return ", ".join(f"{signs[name]} {value:g}" for name, value in rules.items())


def _type(annotation: Any) -> str:
    origin, members = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(member) for member in members if member is not type(None))
    if origin is Literal:
        return " or ".join(str(member) for member in members)
    if origin is list:
        return f"list of {_type(members[0])}"
    if origin is dict:
        return f"map of {_type(members[0])} to {_type(members[1])}"
    if annotation is Any:
        return "part"
    names = {int: "integer", float: "number", str: "text", bool: "yes or no"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
