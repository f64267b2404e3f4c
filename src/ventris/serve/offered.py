"""The parts that clients may name. A client must not make the server load files, or spend others' time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from ventris.engine.errors import BadInput
from ventris.guide.limits import Limits
from ventris.parts import PartSpec, available, build_drafter, build_one, parse, part_class, read_options

if TYPE_CHECKING:
    from ventris.guide.hard import HardGuide
    from ventris.guide.tool_calls import ToolCalls
    from ventris.model import Model

DRAFTERS = frozenset({"ngram"})
"""Drafters that read nothing but the request's own text."""

GUIDES = frozenset({"json-schema", "json", "regex", "grammar", "choice", "format", "words"})

POLICIES = ("fixed", "goodput")
"""Policies that plan for each request by itself."""

MOST_NODES = 32
"""Drafted tokens a step and request; a tree of one client makes the step longer for all."""

KEPT_PARTS = 64
LARGEST_SCHEMA = 200_000
DEEPEST_SCHEMA = 40


class Offered:
    """Builds the parts that a client asks for, or says what is offered.

    Args:
        model: The model they are for.
        drafts: Drafters that the operator offers besides the safe ones, as they must be written.
        compile_seconds: Limit on compiling one guide.
        policies: Policies that the operator runs, as they must be written. One that plans for all requests
            together is the operator's to choose: a second one beside it would know half of them.
    """

    def __init__(
        self,
        model: Model,
        drafts: Sequence[str] = (),
        compile_seconds: float = 2.0,
        policies: Sequence[str] = (),
    ) -> None:
        self.drafts = tuple(dict.fromkeys(drafts))
        self.policies = tuple(dict.fromkeys(policies))
        self.limits = Limits(
            text_bytes=LARGEST_SCHEMA,
            depth=DEEPEST_SCHEMA,
            rewritten_nodes=10_000,
            compile_seconds=compile_seconds,
            compile_bytes=500_000_000,
        )
        self._model = model
        self._kept: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._lock = Lock()

    def draft(self, spec: str) -> Any:
        """A drafter; equal specifications give the same object, so that requests batch.

        Raises:
            BadInput: if it is not offered.
        """
        if spec == "none":
            return None
        if spec in self.drafts:
            # The operator's own words; loaded once and kept with the model.
            return spec
        for part in parse(spec):
            if part.name not in DRAFTERS:
                raise BadInput(
                    f"this server does not offer the drafter {spec!r}; it offers: {', '.join(self._drafts())}"
                )
            _check_nodes(part, "drafter", "max_nodes")
        return self._made("drafter", spec, lambda: build_drafter(spec, self._model.workshop))

    def policy(self, spec: str) -> Any:
        """A policy.

        Raises:
            BadInput: if it is not offered, or may draft too much.
        """
        if spec in self.policies:
            # The model keeps it, so that all requests share one.
            return spec
        for part in parse(spec):
            if part.name not in POLICIES:
                known = ", ".join(self._policies())
                raise BadInput(f"this server does not offer the policy {spec!r}; it offers: {known}")
            _check_nodes(part, "policy", "nodes")
        return self._made("policy", spec, lambda: build_one("policy", spec, self._model.workshop))

    def verifier(self, spec: str) -> Any:
        """A verifier.

        Raises:
            BadInput: if there is none of this name.
        """
        return self._made("verifier", spec, lambda: build_one("verifier", spec, self._model.workshop))

    def guide(self, name: str, options: Mapping[str, Any]) -> HardGuide:
        """A guide within the server's limits; it reads no file.

        Raises:
            BadInput: naming the guide and what is wrong with its options.
        """
        if name not in GUIDES:
            known = ", ".join(sorted(GUIDES))
            raise BadInput(f"this server does not offer the guide {name!r}; it offers: {known}")
        given = dict(options)
        if name == "json-schema":
            schema = given.pop("schema", None)
            if not isinstance(schema, dict | bool):
                raise BadInput("guide 'json-schema' needs its schema as a JSON object in the option 'schema'")
            return self._made_guide(name, given, schema)
        if name == "grammar" and isinstance(given.get("source"), str):
            # More than one line: never the name of a file.
            given["source"] += "\n"
        return self._made_guide(name, given)

    def tool_calls(
        self, tools: Sequence[Mapping[str, Any]], choice: str, parallel: bool, strict: bool
    ) -> ToolCalls:
        """The guide for an answer that may call tools, in the way that the model was trained for.

        A model whose chat template knows no tools is told of them in a system message.

        Raises:
            BadInput: naming the tool and what is wrong with it.
        """
        from ventris.guide.call_format import style_of
        from ventris.guide.tool_calls import ToolCalls

        style = style_of(self._model.tokenizer)
        return ToolCalls(tools, choice, parallel=parallel, style=style, strict=strict, limits=self.limits)

    def describe(self) -> dict[str, Any]:
        """What a client may ask for, as JSON values."""
        return {
            "drafts": self._drafts(),
            "verifiers": sorted(available("verifier")),
            "policies": self._policies(),
            "guides": sorted(GUIDES),
        }

    def _made_guide(self, name: str, given: Mapping[str, Any], *first: Any) -> HardGuide:
        part = part_class("guide", name)
        # A schema is no option of a command line; a stand-in keeps the check of the others in one place.
        stand_in = {"schema": "{}"} if first else {}
        options = read_options("guide", part, PartSpec(name, {**given, **stand_in}))
        chosen = {key: value for key, value in options.model_dump().items() if key not in stand_in}
        guide: HardGuide = part(*first, **chosen, limits=self.limits)
        return guide

    def _made(self, kind: str, spec: str, make: Callable[[], Any]) -> Any:
        with self._lock:
            if (kind, spec) not in self._kept:
                self._kept[kind, spec] = make()
                if len(self._kept) > KEPT_PARTS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end((kind, spec))
            return self._kept[kind, spec]

    def _drafts(self) -> list[str]:
        return list(dict.fromkeys(["none", *sorted(DRAFTERS), *self.drafts]))

    def _policies(self) -> list[str]:
        return list(dict.fromkeys([*POLICIES, *self.policies]))


def _check_nodes(spec: PartSpec, kind: str, option: str) -> None:
    options = read_options(kind, part_class(kind, spec.name), spec)
    nodes = getattr(options, option)
    if option in options.model_fields_set and nodes > MOST_NODES:
        raise BadInput(f"{kind} {spec.name!r}: {option} is {nodes} and this server allows {MOST_NODES}")
