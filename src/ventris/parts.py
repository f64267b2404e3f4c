"""The parts by name: built-in ones and those that other packages bring.

A part is asked for as ``"name"``, ``"name:key=value,key=value"``, ``"name:value"`` (the value of its first
option), a mapping ``{"name": {"key": value}}`` as YAML gives it, or a ready object. A class declares its
options once, as a pydantic model ``Options``; Python, the command line and the docs read it from there.

Other packages register classes under the entry points ``ventris.drafters``, ``ventris.verifiers``,
``ventris.guides`` and ``ventris.policies``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ventris.engine.errors import BadInput

if TYPE_CHECKING:
    from ventris.cost.batch_latency import BatchLatency
    from ventris.cost.curve import CostCurve
    from ventris.engine.target import Target

BUILT_IN: dict[str, dict[str, str]] = {
    "drafter": {
        "ngram": "ventris.draft.ngram:NGram",
        "model": "ventris.draft.model:DraftModel",
        "medusa": "ventris.draft.medusa:Medusa",
        "hydra": "ventris.draft.hydra:Hydra",
        "eagle": "ventris.draft.eagle:Eagle",
        "aligned": "ventris.draft.aligned:Aligned",
        "kangaroo": "ventris.draft.kangaroo:Kangaroo",
        "falcon": "ventris.draft.falcon:Falcon",
        "chimera": "ventris.draft.chimera:Chimera",
        "longspec": "ventris.draft.longspec:LongSpec",
        "omnidraft": "ventris.draft.omnidraft.drafter:OmniDraft",
    },
    "verifier": {
        "greedy": "ventris.verify.match:Greedy",
        "coupled": "ventris.verify.match:Coupled",
        "point-mass": "ventris.verify.match:PointMass",
        "rejection": "ventris.verify.rejection:Rejection",
        "block": "ventris.verify.block:Block",
        "spectr": "ventris.verify.spectr:SpecTr",
        "synthetic": "ventris.verify.synthetic:Synthetic",
        "typical": "ventris.verify.typical:Typical",
        "threshold-rollback": "ventris.verify.threshold_rollback:ThresholdRollback",
        "judge": "ventris.verify.judge:Judge",
        "translated-rejection": "ventris.verify.translated_rejection:TranslatedRejection",
    },
    "guide": {
        "json-schema": "ventris.guide.json_schema:JsonSchema",
        "json": "ventris.guide.json_schema:Json",
        "regex": "ventris.guide.regex:Regex",
        "grammar": "ventris.guide.grammar:Grammar",
        "choice": "ventris.guide.choice:Choice",
        "format": "ventris.guide.format:Format",
        "words": "ventris.guide.words:Words",
        "tool-calls": "ventris.guide.tool_calls:ToolCalls",
        "fuse": "ventris.guide.fuse:Fuse",
    },
    "policy": {
        "fixed": "ventris.policy.fixed:Fixed",
        "goodput": "ventris.policy.goodput:Goodput",
        "smartspec": "ventris.policy.smartspec:SmartSpec",
        "acceptance": "ventris.policy.acceptance_threshold:AcceptanceThreshold",
        "confidence-stop": "ventris.policy.confidence_stop:ConfidenceStop",
    },
}

ENTRY_POINTS = {
    "drafter": "ventris.drafters",
    "verifier": "ventris.verifiers",
    "guide": "ventris.guides",
    "policy": "ventris.policies",
}


@dataclass(frozen=True, slots=True)
class PartSpec:
    """A part asked for by name."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What parts may need while they are built.

    Attributes:
        target: The model that decides; ``None`` for a preview that only checks whether parts fit.
        load_target: Loads a further model with the same tokenizer.
        cost_curve: T(n) of the target on this machine, measured on first use.
        tokenizer: The target's tokenizer, for parts that work on text; ``None`` where it has none.
        batch_latency: T(nodes, context) of the target on this machine, measured on first use.
    """

    target: Target | None = None
    load_target: Callable[[str], Target] | None = None
    cost_curve: Callable[[], CostCurve] | None = None
    tokenizer: Any = None
    batch_latency: Callable[[], BatchLatency] | None = None


class _NoOptions(BaseModel):
    """A part without options."""


@cache
def available(kind: str) -> dict[str, str]:
    """Names of a kind's parts with their import path (``module:Class``)."""
    found = dict(BUILT_IN[kind])
    for point in entry_points(group=ENTRY_POINTS[kind]):
        found.setdefault(point.name, point.value)
    return found


def part_class(kind: str, name: str) -> type[Any]:
    """The class of a part.

    Raises:
        BadInput: for an unknown name (with near ones), or a package whose part does not import.
    """
    known = available(kind)
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known) or 'none yet'}"
        raise BadInput(f"unknown {kind} {name!r}{hint}")
    module, _, attribute = known[name].partition(":")
    try:
        found: type[Any] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise BadInput(f"{kind} {name!r} cannot be loaded from {known[name]}: {error}") from error
    return found


def options_of(part: type[Any]) -> type[BaseModel]:
    """The pydantic model of a part's options."""
    found: type[BaseModel] = getattr(part, "Options", _NoOptions)
    return found


def parse(spec: str | Mapping[str, Any] | Sequence[Any]) -> list[PartSpec]:
    """Read one or several part specifications.

    In a string, commas separate both parts and options: an item with ``=`` and no part name of its own
    belongs to the part before it, so ``"ngram:width=2,min_match=2,model:folder"`` is two parts. Commas in
    brackets or double quotes separate nothing, so ``"regex:[0-9]{1,3}"`` is one part, and so is JSON; quotes
    around a whole value are taken off.

    Raises:
        BadInput: if the text or a piece of it is empty, or it begins with an option.
    """
    if isinstance(spec, Mapping):
        return [PartSpec(name, dict(options or {})) for name, options in spec.items()]
    if not isinstance(spec, str):
        return [part for item in spec for part in parse(item)]
    if not spec.strip():
        raise BadInput("a part specification is empty; write a name such as 'ngram'")
    parts: list[PartSpec] = []
    for item in (piece.strip() for piece in _split(spec)):
        if not item:
            raise BadInput(f"{spec!r} has an empty piece; leave out the comma beside it")
        named = re.fullmatch(r"([A-Za-z][\w.-]*)(?::(.*))?", item, re.DOTALL)
        if "=" in item.split(":")[0] or named is None:
            if not parts or "=" not in item:
                raise BadInput(f"cannot read {item!r} in {spec!r}; write name:key=value,key=value")
            key, _, value = item.partition("=")
            parts[-1] = PartSpec(parts[-1].name, {**parts[-1].options, key.strip(): value.strip()})
            continue
        name, first = named.group(1), named.group(2)
        options: dict[str, Any] = {}
        if first and len(first) > 1 and first[0] == first[-1] == '"':
            options = {"": first[1:-1]}
        elif first:
            key, equals, value = first.partition("=")
            options = {key.strip(): value.strip()} if equals and key.isidentifier() else {"": first}
        parts.append(PartSpec(name, options))
    return parts


def _split(spec: str) -> list[str]:
    """Split at commas, but not inside brackets or double quotes: an option may be a piece of JSON."""
    pieces, depth, quoted, start = [], 0, False, 0
    for place, letter in enumerate(spec):
        if letter == '"':
            quoted = not quoted
        elif not quoted and letter in "([{":
            depth += 1
        elif not quoted and letter in ")]}":
            depth = max(depth - 1, 0)
        elif letter == "," and not quoted and depth == 0:
            pieces.append(spec[start:place])
            start = place + 1
    return [*pieces, spec[start:]]


def read_options(kind: str, part: type[Any], spec: PartSpec) -> BaseModel:
    """Check a part's options.

    Raises:
        BadInput: naming the part, the option and the rule it breaks.
    """
    model = options_of(part)
    strict: type[BaseModel] = type(
        model.__name__, (model,), {"model_config": ConfigDict(extra="forbid"), "__doc__": model.__doc__}
    )
    given = dict(spec.options)
    if "" in given:
        first = next(iter(model.model_fields), None)
        if first is None:
            raise BadInput(f"{kind} {spec.name!r} takes no options, but {given['']!r} was given")
        given[first] = given.pop("")
    try:
        checked: BaseModel = strict.model_validate(given)
    except ValidationError as error:
        first_error = error.errors()[0]
        name = ".".join(str(place) for place in first_error["loc"])
        if first_error["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields) or "none"
            raise BadInput(f"{kind} {spec.name!r} has no option {name!r}; it has: {known}") from error
        raise BadInput(f"{kind} {spec.name!r}, option {name!r}: {first_error['msg'].lower()}") from error
    return checked


def build(kind: str, spec: PartSpec, workshop: Workshop) -> Any:
    """Make a part from its specification.

    A class that needs more than its options (a model, the cost curve) has a class method
    ``build(options, workshop)``; with ``workshop.target`` unset it must return a part that is fit for
    checking combinations, without loading anything.
    """
    part = part_class(kind, spec.name)
    options = read_options(kind, part, spec)
    maker = getattr(part, "build", None)
    return maker(options, workshop) if maker else part(**options.model_dump())


def build_drafter(spec: Any, workshop: Workshop) -> Any:
    """A drafter, or a stack of several by priority; ``None`` for ``None``, ``""`` and ``"none"``."""
    if spec is None or spec in ("", "none"):
        return None
    if not isinstance(spec, str | Mapping | list | tuple):
        return spec
    drafters = [
        item if not isinstance(item, PartSpec) else build("drafter", item, workshop)
        for item in _flatten(spec)
    ]
    if len(drafters) == 1:
        return drafters[0]
    from ventris.draft.stack import Stack

    return Stack(drafters)


def build_guides(specs: Any, workshop: Workshop) -> list[Any]:
    """Guides in the order given; those that work on text are bound to the target's tokenizer.

    A guide asks for that with a method ``bind(tokenizer)`` that returns the guide to use.
    """
    if specs is None:
        return []
    listed = _flatten(specs) if isinstance(specs, str | Mapping | list | tuple) else [specs]
    guides = [item if not isinstance(item, PartSpec) else build("guide", item, workshop) for item in listed]
    if workshop.target is None:
        return guides
    return [guide.bind(workshop.tokenizer) if hasattr(guide, "bind") else guide for guide in guides]


def build_one(kind: str, spec: Any, workshop: Workshop) -> Any:
    """A verifier or a policy.

    Raises:
        BadInput: if several are named.
    """
    if not isinstance(spec, str | Mapping):
        return spec
    parts = parse(spec)
    if len(parts) != 1:
        raise BadInput(f"exactly one {kind} is needed, {len(parts)} were named: {spec!r}")
    return build(kind, parts[0], workshop)


def _flatten(spec: Any) -> list[Any]:
    if isinstance(spec, str | Mapping):
        return list(parse(spec))
    return [part for item in spec for part in (_flatten(item) if isinstance(item, str | Mapping) else [item])]
