"""The rows of the tables: every back end that is installed, and the model without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher

from ventris.engine.errors import BadInput
from ventris.guide import HardGuide, JsonSchema
from ventris.guide.back_ends.choice import is_installed
from ventris.guide.json_schema import WHITESPACE
from ventris.guide.limits import DEFAULT_LIMITS

LM_ONLY = "LM only"
DEFAULT = "ventris"


@dataclass(frozen=True, slots=True)
class BackEnd:
    """A row.

    Attributes:
        make: A guide from a schema and a choice of whitespace; it raises ``BadInput`` for what it refuses.
        about: What it is, for a person.
        on_request: Whether it is a row only where it is named.
    """

    name: str
    make: Callable[[Any, Any], Any]
    about: str
    on_request: bool = False


class _Bare(HardGuide):
    """llguidance given the schema as it is: nothing rewritten, nothing checked at the end."""

    name = "llguidance"

    def __init__(self, schema: Any, whitespace: Any) -> None:
        super().__init__(limits=DEFAULT_LIMITS)
        self._schema, self._whitespace = schema, whitespace

    def grammar(self) -> str:
        return LLMatcher.grammar_from_json_schema(
            json.dumps(self._schema), overrides=WHITESPACE[self._whitespace]
        )


def _ventris(schema: Any, whitespace: Any) -> Any:
    return JsonSchema(schema, whitespace=whitespace)


def _strict(schema: Any, whitespace: Any) -> Any:
    return JsonSchema(schema, whitespace=whitespace, strict=True)


def _in_time(schema: Any, whitespace: Any) -> Any:
    return JsonSchema(schema, whitespace=whitespace, close="in-time")


def _xgrammar(schema: Any, whitespace: Any) -> Any:
    return JsonSchema(schema, whitespace=whitespace, backend="xgrammar")


def _outlines_core(schema: Any, whitespace: Any) -> Any:
    return JsonSchema(schema, whitespace=whitespace, backend="outlines-core")


KNOWN = (
    BackEnd(DEFAULT, _ventris, "the guide json-schema"),
    BackEnd("ventris-strict", _strict, "the same, refusing rules that no mask keeps", on_request=True),
    BackEnd("ventris-in-time", _in_time, "the same, closing within the tokens allowed", on_request=True),
    BackEnd("llguidance", _Bare, "llguidance alone: the schema as it is, no check at the end"),
    BackEnd("xgrammar", _xgrammar, "the guide json-schema, compiled by xgrammar", on_request=True),
    BackEnd("outlines-core", _outlines_core, "the same by outlines-core, no recursion", on_request=True),
)


def installed() -> list[BackEnd]:
    """The back ends that can run here."""
    return [back_end for back_end in KNOWN if is_installed(back_end.name)]


def chosen(names: Sequence[str]) -> list[BackEnd]:
    """The back ends of these names; without names all that need not be asked for.

    Raises:
        BadInput: naming what there is.
    """
    found = {back_end.name: back_end for back_end in installed()}
    if unknown := [name for name in names if name not in found]:
        raise BadInput(f"there is no back end {unknown[0]!r} here; there are: {', '.join(found)}")
    return (
        [found[name] for name in dict.fromkeys(names)]
        if names
        else [back_end for back_end in found.values() if not back_end.on_request]
    )
