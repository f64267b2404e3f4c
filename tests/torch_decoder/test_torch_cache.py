"""Whatever is done to a cache, the next logits are those of its surviving rows.

The reference runs every token ever fed, in one pass of transformers, under a mask that says which
keys each token saw in each layer. So it also covers rows that were dropped layer by layer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
import torch

from ventris.engine.cache import KVCache
from ventris.engine.target import Rows

LAYERS = 4
VOCAB = 96


@dataclass
class Log:
    """Every token ever fed: its position, and per layer the tokens that it saw."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    seen: list[list[set[int]]] = field(default_factory=list)

    def add(self, token: int, position: int, seen: list[set[int]]) -> int:
        index = len(self.tokens)
        self.tokens.append(token)
        self.positions.append(position)
        self.seen.append([rows | {index} for rows in seen])
        return index

    def masks(self, window: int) -> list[torch.Tensor]:
        """Additive masks, for each layer ``[1, 1, tokens, tokens]``."""
        count = len(self.tokens)
        at = torch.tensor(self.positions)
        near = (at[:, None] - at < window) if window else torch.ones(count, count, dtype=torch.bool)
        masks = []
        for layer in range(LAYERS):
            visible = torch.zeros(count, count, dtype=torch.bool)
            for query, seen in enumerate(self.seen):
                visible[query, list(seen[layer])] = True
            masks.append(torch.zeros(count, count).masked_fill_(~(visible & near), -1e30)[None, None])
        return masks

    @torch.no_grad()
    def logits(self, model, window: int) -> torch.Tensor:
        """What transformers makes of the log, ``[tokens, vocab]``."""

        def masked(mask: torch.Tensor):
            return lambda _, args, kwargs: (args, {**kwargs, "attention_mask": mask})

        hooks = [
            layer.self_attn.register_forward_pre_hook(masked(mask), with_kwargs=True)
            for layer, mask in zip(model.model.layers, self.masks(window), strict=True)
        ]
        try:
            at = torch.tensor([self.positions])
            return model(torch.tensor([self.tokens]), position_ids=at, use_cache=False).logits[0]
        finally:
            for hook in hooks:
                hook.remove()


@dataclass
class Twin:
    """A cache and the log entries that its rows stand for, layer by layer."""

    cache: KVCache
    rows: list[list[int]]
    next_position: int = 0

    def fork(self) -> Twin:
        return Twin(self.cache.fork(), [list(rows) for rows in self.rows], self.next_position)

    def truncate(self, length: int, log: Log) -> None:
        self.cache.truncate(length)
        if length < len(self.rows[0]):
            dropped = min(log.positions[rows[length]] for rows in self.rows)
            kept = max((log.positions[rows[length - 1]] for rows in self.rows if length), default=-1)
            self.next_position = max(dropped, kept + 1)
        self.rows = [rows[:length] for rows in self.rows]

    def keep(self, chosen: list[list[int]], per_layer: bool) -> None:
        self.cache.keep(torch.tensor(chosen if per_layer else chosen[0], dtype=torch.int64))
        self.rows = [[rows[i] for i in keep] for rows, keep in zip(self.rows, chosen, strict=True)]


def grow(twin: Twin, log: Log, dice: random.Random) -> tuple[Rows, list[int]]:
    """A random tree below the cache's rows, entered in the log."""
    count = dice.randint(1, 6)
    tokens = [dice.randrange(VOCAB) for _ in range(count)]
    parents = [dice.randint(max(-1, node - 3), node - 1) for node in range(count)]
    entries: list[int] = []
    for token, parent in zip(tokens, parents, strict=True):
        if parent < 0:
            entries.append(log.add(token, twin.next_position, [set(rows) for rows in twin.rows]))
        else:
            above = entries[parent]
            entries.append(log.add(token, log.positions[above] + 1, log.seen[above]))
    return Rows(twin.cache, tokens, parents), entries


def accept(twin: Twin, rows: Rows, entries: list[int], dice: random.Random) -> None:
    """Commit the path to a random node, or nothing."""
    node, path = dice.randint(-1, len(entries) - 1), []
    while node >= 0:
        path.append(node)
        node = rows.parents[node]
    path.reverse()
    twin.cache.commit(path)
    twin.next_position += len(path)
    for layer in twin.rows:
        layer.extend(entries[i] for i in path)


@pytest.mark.parametrize("name", ["llama", "mistral"])
@pytest.mark.parametrize("seed", range(12))
def test_random_histories(name, seed, family, decoder):
    target, model = decoder(name), family(name).hf_model
    dice = random.Random(seed)
    log = Log()
    twins = [Twin(target.new_cache(capacity=dice.choice([1, 8, 64])), [[] for _ in range(LAYERS)])]
    got: list[tuple[int, torch.Tensor]] = []
    for _ in range(14):
        twin = dice.choice(twins)
        length = twin.cache.length
        action = dice.choice(["grow", "grow", "grow", "grow", "fork", "truncate", "keep", "drop"])
        if action == "fork" and len(twins) < 4:
            twins.append(twin.fork())
        elif action == "drop" and len(twins) > 1:
            twins.remove(twin)
            twin.cache.release()
        elif action == "truncate" and length:
            twin.truncate(dice.randint(max(0, length - 4), length), log)
        elif action == "keep" and length > 2:
            count = dice.randint(2, length)
            per_layer = dice.random() < 0.5
            chosen = [sorted(dice.sample(range(length), count)) for _ in range(LAYERS if per_layer else 1)]
            twin.keep(chosen if per_layer else chosen * LAYERS, per_layer)
        else:
            growing = dice.sample(twins, dice.randint(1, len(twins)))
            passes = [grow(one, log, dice) for one in growing]
            scores = target.forward([rows for rows, _ in passes])
            for one, (rows, entries), logits in zip(growing, passes, scores.logits, strict=True):
                got.extend(zip(entries, logits, strict=True))
                accept(one, rows, entries, dice)
        for one in twins:
            assert one.cache.length == len(one.rows[0])
            assert one.cache.next_position == one.next_position
            positions = [[log.positions[i] for i in rows] for rows in one.rows]
            assert one.cache.positions().tolist() == positions

    window = target.config.sliding_window
    expected = log.logits(model, window)[[entry for entry, _ in got]]
    torch.testing.assert_close(torch.stack([logits for _, logits in got]), expected, atol=1e-4, rtol=0)
    for one in twins:
        one.cache.release()
    assert twins[0].cache.ledger.total == 0
