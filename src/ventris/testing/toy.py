"""A target small enough to enumerate: its next-token law is a fixed function of the whole prefix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ventris.engine.cache import CacheLayout, KVCache, MemoryLedger
from ventris.engine.randomness import uniform
from ventris.engine.target import Rows, Scores


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
        logits = []
        for rows in batch:
            wanted = range(len(rows.tokens)) if rows.wanted is None else rows.wanted
            keys, _ = rows.cache.rows(0, rows.start + len(rows.tokens))
            held = [int(token) for token in keys[0, :, 0].tolist()]
            scored = [self.logits(_prefix(rows, node, held)) for node in wanted]
            logits.append(torch.stack(scored) if scored else torch.empty((0, self.vocab_size)))
        self.forwards += 1
        return Scores(logits, tapped | ({1: hidden} if 1 in taps else {}))

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
        offset = 0
        for rows in batch:
            count = len(rows.tokens)
            span = rows.cache.reserve(rows.start + count, rows.start)
            place = span.used + rows.start
            span.storage.data[0, :, 0, place : place + count] = hidden[offset : offset + count]
            offset += count
        return hidden, {layer: hidden for layer in taps if first <= layer < last}

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of one-token prefixes, since a row of this model knows its own token only."""
        return torch.stack([self.logits([int(row)]) for row in hidden[:, 0]])


def _prefix(rows: Rows, node: int, held: Sequence[int]) -> list[int]:
    """The tokens up to a row, of all that the cache holds: the committed ones and its path."""
    scratch = rows.start + node
    path = []
    while scratch >= 0:
        path.append(held[rows.cache.length + scratch])
        scratch = rows.parents[scratch]
    return [*held[: rows.cache.length], *reversed(path)]
