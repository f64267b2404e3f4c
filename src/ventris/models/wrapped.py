"""A target around another one: what is not made anew is handed on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from ventris.engine.cache import KVCache
from ventris.engine.ledger import MemoryLedger
from ventris.engine.target import Rows, Scores, Target


class WrappedTarget(ABC):
    """A :class:`~ventris.engine.target.Target` with the sizes, the caches and the layers of another one.

    Args:
        inner: The other one.
    """

    def __init__(self, inner: Target) -> None:
        self.inner = inner
        self.vocab_size = inner.vocab_size
        self.hidden_size = inner.hidden_size
        self.num_layers = inner.num_layers
        self.context_length = inner.context_length
        self.device = inner.device

    def new_cache(
        self, capacity: int = 64, ledger: MemoryLedger | None = None, owner: str = "target"
    ) -> KVCache:
        """As :meth:`Target.new_cache`."""
        return self.inner.new_cache(capacity, ledger, owner)

    @abstractmethod
    def forward(self, batch: Sequence[Rows], taps: Sequence[int] = ()) -> Scores:
        """As :meth:`Target.forward`."""

    def embed(self, batch: Sequence[Rows]) -> Tensor:
        """As :meth:`Target.embed`."""
        return self.inner.embed(batch)

    def run_layers(
        self, batch: Sequence[Rows], hidden: Tensor, first: int, last: int, taps: Sequence[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """As :meth:`Target.run_layers`."""
        return self.inner.run_layers(batch, hidden, first, last, taps)

    def head(self, hidden: Tensor) -> Tensor:
        """As :meth:`Target.head`."""
        return self.inner.head(hidden)
