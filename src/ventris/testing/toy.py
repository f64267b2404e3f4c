"""A target small enough to enumerate: its next-token law is a fixed function of the whole prefix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ventris.engine.cache import CacheLayout, KVCache
from ventris.engine.ledger import MemoryLedger
from ventris.engine.randomness import uniform
from ventris.engine.target import Rows, Scores

PREFIX_UNIT = 2.0**-36
"""What a toy's rows count prefixes in, behind the point: room for billions of them in float64."""

PREFIXES_KEPT = 4096


class ToyTarget:
    """Random logits for every prefix, in float64, read back from the cache rows themselves.

    A cache row holds its token, so a wrong row after a commit, fork or truncation changes the logits: any
    cache mistake of the loop becomes visible as a different distribution.

    Args:
        vocab_size: Tokens.
        seed: Two targets with the same seed agree; nearby laws come from ``blend``.
        sharpness: Standard deviation, roughly, of the logits.
        blend: Seed and weight of a second law mixed into the logits, to make draft models that are
            close to their target.
        memory: Only so many last tokens matter; 0 for the whole prefix. A short memory makes text that
            repeats itself.
    """

    def __init__(
        self,
        vocab_size: int = 5,
        seed: int = 0,
        sharpness: float = 2.0,
        blend: tuple[int, float] | None = None,
        memory: int = 0,
        context_length: int = 4096,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = 1
        self.num_layers = 1
        self.context_length = context_length
        self.device = torch.device("cpu")
        self.seed = seed
        self.sharpness = sharpness
        self.blend = blend
        self.memory = memory
        self.forwards = 0
        self._laws: dict[tuple[int, tuple[int, ...]], Tensor] = {}
        self._ended: list[tuple[list[int], list[int], int, int]] = []
        self._forgotten = 0
        self._layout = CacheLayout(1, 1, 1, torch.float64, self.device)

    def new_cache(
        self, capacity: int = 64, ledger: MemoryLedger | None = None, owner: str = "target"
    ) -> KVCache:
        return KVCache(self._layout, capacity, ledger, owner)

    def logits(self, prefix: Sequence[int]) -> Tensor:
        """Logits ``[vocab]`` after a prefix."""
        tail = tuple(prefix[-self.memory :] if self.memory else prefix)
        row = self._law(self.seed, tail)
        if self.blend:
            other, weight = self.blend
            row = (1 - weight) * row + weight * self._law(other, tail)
        return row

    def _law(self, seed: int, tail: tuple[int, ...]) -> Tensor:
        known = self._laws.get((seed, tail))
        if known is None:
            key = hash((seed, tail))
            row = [self.sharpness * 3.4 * (uniform(key, 0, t) - 0.5) for t in range(self.vocab_size)]
            known = self._laws[seed, tail] = torch.tensor(row, dtype=torch.float64)
        return known

    def forward(self, batch: Sequence[Rows], taps: Sequence[int] = ()) -> Scores:
        hidden, tapped = self.run_layers(batch, self.embed(batch), 0, 1, taps)
        logits, offset = [], 0
        for rows in batch:
            wanted = range(len(rows.tokens)) if rows.wanted is None else rows.wanted
            logits.append(self.head(hidden[[offset + node for node in wanted]]))
            offset += len(rows.tokens)
        self.forwards += 1
        return Scores(logits, tapped)

    def embed(self, batch: Sequence[Rows]) -> Tensor:
        parts = [
            torch.tensor([[float(token)] for token in rows.tokens], dtype=torch.float64).view(-1, 1)
            if rows.embeddings is None
            else rows.embeddings
            for rows in batch
        ]
        return torch.cat(parts)

    def run_layers(
        self, batch: Sequence[Rows], hidden: Tensor, first: int, last: int, taps: Sequence[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        tapped = {first: hidden} if first in taps else {}
        if first == 0 and last == 1:
            hidden = torch.cat(
                [
                    self._run_layer(rows, part)
                    for rows, part in zip(
                        batch, torch.split(hidden, [len(rows.tokens) for rows in batch]), strict=True
                    )
                ]
            )
        return hidden, tapped | ({last: hidden} if last in taps else {})

    def _run_layer(self, rows: Rows, hidden: Tensor) -> Tensor:
        """Tokens to rows that say, behind the point, which prefix they end."""
        count = len(rows.tokens)
        span = rows.cache.reserve(rows.start + count, rows.start)
        place = span.used + rows.start
        span.storage.data[0, :, 0, place : place + count] = hidden
        keys, _ = rows.cache.rows(0, rows.start + count)
        held = [int(token) for token in keys[0, :, 0].tolist()]
        parents = list(rows.parents)
        if len(self._ended) > 2 * PREFIXES_KEPT:
            # Nobody asks for the logits of rows of earlier steps.
            del self._ended[:PREFIXES_KEPT]
            self._forgotten += PREFIXES_KEPT
        first = self._forgotten + len(self._ended)
        self._ended += [(held, parents, rows.cache.length, rows.start + node) for node in range(count)]
        numbers = torch.arange(first, first + count, dtype=torch.float64)
        return hidden.floor() + numbers[:, None] * PREFIX_UNIT

    def head(self, hidden: Tensor) -> Tensor:
        """The law after the prefix that each row ends, ``[n, vocab]``."""
        numbers = ((hidden[:, 0] - hidden[:, 0].floor()) / PREFIX_UNIT).round().long().tolist()
        scored = [self.logits(_prefix(*self._ended[number - self._forgotten])) for number in numbers]
        return torch.stack(scored) if scored else torch.empty((0, self.vocab_size))


def _prefix(held: Sequence[int], parents: Sequence[int], committed: int, scratch: int) -> list[int]:
    """The tokens up to a scratch row, of all that the cache holds: the committed ones and its path."""
    path = []
    while scratch >= 0:
        path.append(held[committed + scratch])
        scratch = parents[scratch]
    return [*held[:committed], *reversed(path)]
