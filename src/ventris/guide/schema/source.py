"""A JSON schema from what people have: a dictionary, a file, JSON text, a pydantic class, a type."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from os import PathLike
from typing import Any, get_type_hints, is_typeddict

import typing_extensions
from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError

from ventris.engine.errors import BadInput
from ventris.guide.limits import Limits
from ventris.guide.sources import names_file, read_text

Schema = dict[str, Any] | bool


def read_schema(source: Any, limits: Limits) -> Schema:
    """The schema that ``source`` stands for.

    Args:
        source: A schema as dictionary or boolean; JSON text; a file, if need be with a pointer to one
            component behind it (``"openapi.json#/components/schemas/Invoice"``); a pydantic model, data
            class, ``TypedDict`` or any other type that pydantic can describe.

    Raises:
        BadInput: if it is none of these, or is larger or deeper than the limits allow.
    """
    if isinstance(source, bool):
        return source
    if isinstance(source, Mapping):
        return _checked(dict(source), limits)
    if isinstance(source, str | PathLike):
        return _checked(_from_text(source, limits), limits)
    try:
        if isinstance(source, type) and issubclass(source, BaseModel):
            return _checked(source.model_json_schema(by_alias=True), limits)
        return _checked(TypeAdapter(_own_typed_dict(source)).json_schema(by_alias=True), limits)
    except PydanticUserError as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"cannot make a JSON schema of {source!r}: {reason}") from None


def _own_typed_dict(source: Any) -> Any:
    """A ``typing.TypedDict`` as pydantic wants it before Python 3.12: as that of the extensions."""
    if not is_typeddict(source):
        return source
    fields = {
        key: kind if key in source.__required_keys__ else typing_extensions.NotRequired[kind]
        for key, kind in get_type_hints(source).items()
    }
    return typing_extensions.TypedDict(source.__name__, fields)  # type: ignore[operator]


def _from_text(source: str | PathLike[str], limits: Limits) -> Any:
    pointer = ""
    if isinstance(source, str) and "#" in source and not names_file(source):
        file, _, rest = source.partition("#")
        if names_file(file):
            source, pointer = file, rest
    text = read_text(source, "schema")
    if not text.lstrip().startswith(("{", "true", "false")):
        if text is not source:
            raise BadInput(f"the file {source} holds no JSON schema; that is an object, true or false")
        raise BadInput(f"{str(source)[:80]!r} is neither a file nor a JSON schema")
    if len(text) > limits.text_bytes:
        limits.check_text(text, "schema")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadInput(f"the schema is no JSON: {error}") from None
    except RecursionError:
        raise BadInput(f"the schema nests deeper than the limit depth, {limits.depth}") from None
    return {**found, "$ref": "#" + pointer} if pointer else found


def _checked(schema: Any, limits: Limits) -> Schema:
    """The schema as plain JSON values, within the limits."""
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, dict):
        raise BadInput(f"a JSON schema is an object or a boolean, not {type(schema).__name__}")
    _check_values(schema, limits)
    text = json.dumps(schema, ensure_ascii=False)
    if len(text) * 4 > limits.text_bytes and (size := len(text.encode(errors="replace"))) > limits.text_bytes:
        raise BadInput(f"the schema has {size:,} bytes and the limit text_bytes is {limits.text_bytes:,}")
    return schema


def _check_values(root: Any, limits: Limits) -> None:
    """Refuse what is no JSON, or nested too deeply (a loop of Python objects is, too)."""
    waiting = [(root, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > limits.depth:
            raise BadInput(f"the schema nests deeper than the limit depth, {limits.depth}; use $ref")
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise BadInput("a key of the schema is no string")
            waiting += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list | tuple):
            waiting += [(item, depth + 1) for item in value]
        elif isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"the schema holds the number {value}, which JSON cannot write")
        elif value is not None and not isinstance(value, str | int | float):
            raise BadInput(f"the schema holds a {type(value).__name__}, which JSON cannot write")
