"""The form of an answer by one option: each is short for a guide."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ventris.engine.errors import BadInput
from ventris.parts import PartSpec, Workshop, build

with warnings.catch_warnings():
    # The option has the name that everybody expects; pydantic has an old method of that name.
    warnings.simplefilter("ignore")

    class FormOptions(BaseModel):
        """What the answer must look like."""

        model_config = ConfigDict(extra="forbid")

        json_schema: str | dict[str, Any] | None = Field(
            None, description="JSON of this schema: a file, or its text"
        )
        schema: str | None = Field(None, description="the same in short: 'name, age int, tags [str]'")  # type: ignore[assignment]
        regex: str | None = Field(None, description="text that matches this expression as a whole")
        grammar: str | None = Field(
            None, description="sentence of this Lark or GBNF grammar: a file or its text"
        )
        choices: list[str] = Field(
            default_factory=list, description="one of these texts, with commas between"
        )


def form_guides(given: Mapping[str, Any]) -> list[Any]:
    """The guide that the options of :class:`FormOptions` ask for, checked as far as a model is not needed.

    Args:
        given: Options by name; those that were not given are missing or empty.

    Raises:
        BadInput: naming the option; also if there are several.
    """
    asked = {name: value for name, value in given.items() if value is not None and value != []}
    if not asked:
        return []
    flags = [_flag(name) for name in asked]
    if len(flags) > 1:
        raise BadInput(
            f"{flags[0]} and {flags[1]} both say what the answer looks like; give one of them "
            "(guides that hold together are written with --guide)"
        )
    (name, value), flag = next(iter(asked.items())), flags[0]
    try:
        return [build("guide", _spec(name, value), Workshop())]
    except BadInput as error:
        raise BadInput(f"{flag}: {error}") from None


def _flag(name: str) -> str:
    return "--choice" if name == "choices" else "--" + name.replace("_", "-")


def _spec(name: str, value: Any) -> PartSpec:
    if name == "choices":
        # As in a CSV file: a text with commas stands in double quotes.
        rows = csv.reader(value, skipinitialspace=True)
        return PartSpec("choice", {"options": [text for row in rows for text in row]})
    if name == "schema":
        from ventris.guide.schema.concise import concise_schema

        return PartSpec("json-schema", {"schema": json.dumps(concise_schema(value))})
    text = json.dumps(value) if isinstance(value, Mapping) else value
    return PartSpec(name.replace("_", "-"), {"": text})
