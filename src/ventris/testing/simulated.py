"""Time without a clock: a target and a drafter without contents, whose work takes what one says it takes.

With them the real engine and the real policies become a discrete-event simulation: the same requests, batches
and decisions, on a clock that moves only when something is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ventris.engine.cache import CacheLayout, KVCache
from ventris.engine.ledger import MemoryLedger
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.target import Rows, Scores
from ventris.engine.tree import TokenTree


class VirtualTime:
    """A clock that is moved by hand. Call it for the seconds since the beginning."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait_until(self, moment: float) -> None:
        """Let time pass up to ``moment``; nothing happens if that is over."""
        self.now = max(self.now, moment)


class SimulatedTarget:
    """Says token 0 wherever it is asked, after as many seconds as ``latency`` has for the pass.

    Pair it with a verifier that decides on its own: the ``synthetic`` one, whose coin says what is kept, or
    :class:`~ventris.testing.recorded.Recorded`.

    Args:
        time: Moved on by every pass.
        latency: Seconds by rows of the pass and cached rows behind them.
        vocab_size: More than two where the prompts hold real tokens.
    """

    hidden_size = 1
    num_layers = 1
    context_length = 1 << 20
    device = torch.device("cpu")

    def __init__(self, time: VirtualTime, latency: Callable[[int, int], float], vocab_size: int = 2) -> None:
        self.time = time
        self.latency = latency
        self.vocab_size = vocab_size
        self._row = torch.zeros(1, vocab_size)
        self._row[0, 0] = 1.0
        self._layout = CacheLayout(1, 1, 1, torch.float32, self.device)

    def new_cache(
        self, capacity: int = 64, ledger: MemoryLedger | None = None, owner: str = "target"
    ) -> KVCache:
        return KVCache(self._layout, capacity, ledger, owner)

    def forward(self, batch: Sequence[Rows], taps: Sequence[int] = ()) -> Scores:
        logits = []
        for rows in batch:
            count = len(rows.tokens)
            rows.cache.reserve(rows.start + count, rows.start)
            logits.append(self._row.expand(count if rows.wanted is None else len(rows.wanted), -1))
        nodes = sum(len(rows.tokens) for rows in batch)
        self.time.now += self.latency(nodes, sum(rows.cache.length for rows in batch))
        return Scores(logits, {layer: torch.zeros(nodes, 1) for layer in taps})

    def embed(self, batch: Sequence[Rows]) -> Tensor:
        return torch.zeros(sum(len(rows.tokens) for rows in batch), 1)

    def run_layers(
        self, batch: Sequence[Rows], hidden: Tensor, first: int, last: int, taps: Sequence[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        return hidden, dict.fromkeys(taps, hidden)

    def head(self, hidden: Tensor) -> Tensor:
        return torch.zeros(len(hidden), self.vocab_size)


class SimulatedDrafter:
    """Drafts chains of token 1, level by level for all requests, as a draft model does.

    Args:
        time: Moved on by every level.
        level_seconds: What a level takes for any number of requests.
        node_seconds: What each drafted token takes besides.
    """

    name = "simulated"
    shape = "chain"
    draws = False
    taps: Sequence[int] = ()

    def __init__(self, time: VirtualTime, level_seconds: float, node_seconds: float = 0.0) -> None:
        self.time = time
        self.level_seconds = level_seconds
        self.node_seconds = node_seconds

    def start(self, request: RequestView) -> None:
        """Nothing to remember."""

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        lengths = [min(job.budget.nodes, job.budget.depth) for job in jobs]
        self.time.now += max(lengths) * self.level_seconds + sum(lengths) * self.node_seconds
        return [
            TokenTree.chain([job.root, *[1] * length], self.name)
            for job, length in zip(jobs, lengths, strict=True)
        ]

    def observe(self, state: Any, commit: Commit) -> None:
        """Nothing to learn."""
