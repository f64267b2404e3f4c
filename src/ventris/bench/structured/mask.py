"""The mask protocol: known instances fed to every back end, each mask timed. No model decodes."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, Literal

from pydantic import BaseModel, Field

from ventris.bench.structured.back_ends import chosen
from ventris.bench.structured.cases import Case
from ventris.bench.structured.feed import Feeder
from ventris.engine.errors import BadInput, VentrisError
from ventris.guide.vocabulary import ByteTokenizer, vocabulary_of

Status = Literal["accepted", "refused", "timeout", "memory", "crash", "error"]


class MaskResult(BaseModel):
    """One schema under one back end. Lists hold descriptions of instances.

    Attributes:
        reason: Of a refusal, or of another end before time.
        compile_seconds: Until the guide is ready.
        first_mask_seconds: From the beginning until the first mask is there.
        mask_seconds: Every mask with its step.
        checked_at_end: Keywords that no mask keeps; the guide says so beforehand.
        valid_rejected: Valid instances that are not allowed, in no order of properties.
        other_order: Valid instances that are allowed with their properties in another order.
        let_through: Invalid instances that are called valid.
        caught_at_end: Invalid instances that every mask allows, until nothing but a broken end could follow:
            the guide stops there, or the check at the end tells them.
        cut_short: Invalid instances without a masked token, but with the end masked. The public runner,
            which does not ask about the end, counts them as let through.
        stopped: Instances in which a limit ended the guide.
    """

    name: str
    back_end: str
    status: Status
    reason: str = ""
    compile_seconds: float = 0.0
    first_mask_seconds: float = 0.0
    mask_seconds: list[float] = Field(default_factory=list)
    checked_at_end: list[str] = Field(default_factory=list)
    valid: int = 0
    invalid: int = 0
    valid_rejected: list[str] = Field(default_factory=list)
    other_order: list[str] = Field(default_factory=list)
    let_through: list[str] = Field(default_factory=list)
    caught_at_end: list[str] = Field(default_factory=list)
    cut_short: list[str] = Field(default_factory=list)
    stopped: list[str] = Field(default_factory=list)

    @property
    def rank(self) -> int:
        """How good this is, for ratchets: an index into :data:`RANKS`."""
        if self.status != "accepted":
            return RANKS.index("refused" if self.status == "refused" else "stopped")
        if self.let_through or self.valid_rejected or self.stopped:
            return RANKS.index("wrong")
        return RANKS.index("checked at end" if self.checked_at_end else "enforced")


RANKS = ("stopped", "wrong", "refused", "checked at end", "enforced")
"""From worst to best. Refused is better than wrong: it is said."""


def run_mask_case(case: Case, back_end: str, tokenizer: ByteTokenizer, whitespace: str) -> MaskResult:
    """Compile one schema, and feed its instances."""
    result = MaskResult(name=case.name, back_end=back_end, status="accepted")
    started = perf_counter()
    try:
        guide = chosen([back_end])[0].make(case.json_schema, whitespace).bind(tokenizer)
        result.compile_seconds = perf_counter() - started
        feeder = Feeder(guide, tokenizer, whitespace)
        feeder.first_mask()
    except VentrisError as error:
        return MaskResult(name=case.name, back_end=back_end, status="refused", reason=str(error))
    result.first_mask_seconds = perf_counter() - started
    result.checked_at_end = list(getattr(guide, "unmasked", ()))
    for test in case.tests:
        _judge(result, feeder, test.data, test.valid, test.description)
    return result


def _judge(result: MaskResult, feeder: Feeder, data: Any, valid: bool, description: str) -> None:
    result.valid += valid
    result.invalid += not valid
    try:
        fed = feeder.feed(data)
    except VentrisError as error:
        result.stopped.append(f"{description}: {error}")
        return
    result.mask_seconds += fed.seconds
    named = f"{description}: {fed.end!r}"
    if valid and not fed.valid:
        (result.other_order if feeder.in_some_order(data) else result.valid_rejected).append(named)
    elif not valid and fed.valid:
        result.let_through.append(named)
    elif not valid and fed.allowed:
        caught = fed.may_end or fed.broken_end
        (result.caught_at_end if caught else result.cut_short).append(named)


def prepare_masks(model: str, whitespace: str) -> Callable[[tuple[Case, str]], MaskResult]:
    """For a worker process: the tokenizer is read once.

    Raises:
        BadInput: if the model has no tokenizer.
    """
    tokenizer = read_tokenizer(model)
    vocabulary_of(tokenizer)
    return lambda job: run_mask_case(job[0], job[1], tokenizer, whitespace)


def read_tokenizer(model: str) -> ByteTokenizer:
    """A model's tokenizer, without its weights.

    Raises:
        BadInput: if there is none.
    """
    from ventris.models.source import resolve

    tokenizer = resolve(model).tokenizer
    if tokenizer is None:
        raise BadInput(f"the model {model!r} has no tokenizer, and guides mask by text")
    return tokenizer
