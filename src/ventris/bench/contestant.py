"""What takes part in a race, and what it hands back for one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ventris.bench.clock import Clock

Kind = Literal["method", "peer"]


@dataclass(frozen=True, slots=True)
class Limits:
    """When an output ends, for every contestant alike.

    Attributes:
        max_new_tokens: Tokens at most.
        end_ids: Tokens that end it; they count as output.
    """

    max_new_tokens: int
    end_ids: frozenset[int]


@dataclass(slots=True)
class Decoded:
    """One prompt decoded by one contestant.

    Attributes:
        clock: When the tokens arrived.
        passes: Target passes that produced tokens, the one that read the end of the prompt among them;
            ``None`` where a runtime does not tell.
        parts: Decode seconds by part of a step.
    """

    tokens: list[int]
    clock: Clock
    finish: str
    passes: int | None = None
    decode_passes: int | None = None
    drafted: int = 0
    accepted: int = 0
    proposed_by_depth: list[int] = field(default_factory=list)
    accepted_by_depth: list[int] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)


class Contestant(Protocol):
    """A method of this toolkit, or another toolkit."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def twin(self) -> str:
        """The contestant whose output it is compared with, token for token."""
        ...

    def decode(self, prompt: Sequence[int], limits: Limits) -> Decoded:
        """Decode one prompt from scratch."""
        ...

    def logit_gap(self, prefix: Sequence[int], tokens: tuple[int, int]) -> tuple[float, float] | None:
        """How far two tokens' logits lie apart after a prefix, and how far rounding may move them.

        ``None`` where that is not known.
        """
        ...
