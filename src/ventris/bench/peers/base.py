"""What a peer is opened with, and how it says that it cannot run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ventris.bench.contestant import Kind
from ventris.bench.methods import AUTOREGRESSIVE

if TYPE_CHECKING:
    from ventris.models.source import ModelSource


class PeerMissing(Exception):
    """A peer cannot take part; the message says why in a few words."""


@dataclass(slots=True)
class PeerContext:
    """What the race is about.

    Attributes:
        source: The model, as our own runtime loaded it; ``None`` for one that has no files.
        threads: Threads for every runtime.
        context_length: Tokens of the longest conversation.
        draft_model: Name of a draft model, for peers that take one.
        greedy: Peers run greedy decoding only.
        shared: Loaded models by runtime, since several peers run on one.
    """

    source: ModelSource | None
    threads: int
    context_length: int
    draft_model: str | None = None
    greedy: bool = True
    shared: dict[str, Any] = field(default_factory=dict)

    def model(self) -> ModelSource:
        """The model's files.

        Raises:
            PeerMissing: if there are none, or the race is not greedy.
        """
        if not self.greedy:
            raise PeerMissing("runs at temperature 0 only")
        if self.source is None:
            raise PeerMissing("the model has no files")
        return self.source

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` returned the first time."""
        if name not in self.shared:
            self.shared[name] = make()
        return self.shared[name]


class Peer:
    """What all peers have in common."""

    kind: Kind = "peer"
    twin = AUTOREGRESSIVE
    name: str
    plain: str
    statement: str

    def logit_gap(self, prefix: object, tokens: object) -> None:
        """Another toolkit's arithmetic differs from ours, so a difference is counted and not judged."""
        return
