"""The methods that take turns in ``cost``: without a guide, under it, and with drafts under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from ventris.engine.errors import BadInput
from ventris.parts import Workshop, available, build_drafter, options_of, parse, part_class

UNGUIDED, GUIDED, FORCED = "unguided", "guided", "guided, forced text"
NGRAM, NGRAM_FORCED = "ngram", "ngram, forced text"


@dataclass(frozen=True, slots=True)
class Method:
    """One way to decode.

    Attributes:
        forced: Draft text that must come next.
        pruned: Drop drafts that the mask forbids before the target scores them.
    """

    name: str
    guided: bool = True
    forced: bool = False
    draft: str | None = None
    pruned: bool = True


class Timed(BaseModel):
    """One prompt decoded once.

    Attributes:
        step_seconds: Median of the steps behind the first token.
        token_seconds: Decode time a token behind the first.
        guide_seconds: Of a step, as the engine counts it.
    """

    schema_name: str
    method: str
    repeat: int
    tokens: int
    steps: int
    step_seconds: float
    token_seconds: float
    guide_seconds: float
    drafted: int
    accepted: int


def cost_methods(drafts: Sequence[str]) -> list[Method]:
    """Without drafts, and by each drafter with and without pruning; n-grams with forced text, too."""
    methods = [Method(UNGUIDED, guided=False), Method(GUIDED), Method(FORCED, forced=True)]
    for draft in drafts:
        methods += [Method(draft, draft=draft), Method(unpruned(draft), draft=draft, pruned=False)]
    if NGRAM in drafts:
        methods.append(Method(NGRAM_FORCED, forced=True, draft=NGRAM))
    return methods


def unpruned(draft: str) -> str:
    """The name of the method that keeps the drafts which the mask forbids."""
    return f"{draft}, not pruned"


def is_trained(draft: str) -> bool:
    """Whether one of the drafters that a specification names reads a checkpoint."""
    parts = [part_class("drafter", spec.name) for spec in parse(draft)]
    return any("checkpoint" in options_of(part).model_fields for part in parts)


def drafts_for(workshop: Workshop, named: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """The drafters to compare, and for those that cannot be had the reason.

    Args:
        named: Only these. Otherwise n-grams and every trained drafter that there is for the target, alone
            and behind n-grams.

    Raises:
        BadInput: if one that was named cannot be had.
    """
    for draft in named:
        build_drafter(draft, workshop)
    if named:
        return list(dict.fromkeys(named)), {}
    found, missing = [NGRAM], {}
    for name in available("drafter"):
        try:
            if is_trained(name):
                build_drafter(name, workshop)
                found += [name, f"{NGRAM},{name}"]
        except BadInput as error:
            missing[name] = str(error)
    return found, missing
