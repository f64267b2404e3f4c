"""Rows that have run through the target's first layers while they were drafted, and go on from there.

A drafter that is made of the target's own first layers has done part of the target's work before the step
begins. What it leaves with the stream is not run twice: the step's pass takes those rows up at the layer
where they stopped, and brings all other rows there first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from ventris.engine.target import Rows, Scores, Target


@dataclass(frozen=True, slots=True)
class Begun:
    """The first scratch rows of a stream, as far as they have come.

    Attributes:
        layer: The layer that they enter next; keys and values of those before it are in the scratch rows.
        hidden: Its inputs, ``[rows, hidden]``.
    """

    layer: int
    hidden: Tensor

    def __len__(self) -> int:
        return len(self.hidden)

    def first(self, rows: int) -> Begun:
        """The first ``rows`` of them."""
        return Begun(self.layer, self.hidden[:rows])


def forward_from_begun(
    target: Target, batch: Sequence[Rows], begun: Sequence[Begun | None], taps: Sequence[int]
) -> Scores:
    """As :meth:`Target.forward`, where some first rows of some entries have been begun, at one layer all.

    Taps below that layer hold zeros for the begun rows.
    """
    some = next(known for known in begun if known is not None)
    layer = some.layer
    done = [0 if known is None else len(known) for known in begun]
    rest = [_from(rows, count) for rows, count in zip(batch, done, strict=True)]
    running = [rows for rows in rest if rows.tokens]
    low = [tap for tap in taps if tap < layer]
    early: dict[int, Tensor] = {}
    fresh = some.hidden[:0]
    if running:
        fresh, early = target.run_layers(running, target.embed(running), 0, layer, low)
    hidden = _join(begun, fresh, rest)
    out, tapped = target.run_layers(batch, hidden, layer, target.num_layers, [t for t in taps if t >= layer])
    blank = [None if known is None else Begun(layer, torch.zeros_like(known.hidden)) for known in begun]
    tapped |= {tap: _join(blank, rows, rest) for tap, rows in early.items()}
    ends = list(accumulate(len(rows.tokens) for rows in batch))
    wanted = [range(len(rows.tokens)) if rows.wanted is None else rows.wanted for rows in batch]
    firsts = [end - len(rows.tokens) for end, rows in zip(ends, batch, strict=True)]
    places = [first + node for first, nodes in zip(firsts, wanted, strict=True) for node in nodes]
    logits = target.head(out[torch.tensor(places, dtype=torch.int64, device=out.device)])
    return Scores(list(torch.split(logits, [len(nodes) for nodes in wanted])), tapped)


def _from(rows: Rows, count: int) -> Rows:
    """The rows behind the first ``count``, no logits wanted."""
    embeddings = None if rows.embeddings is None else rows.embeddings[count:]
    start = rows.start + count
    return replace(rows, tokens=rows.tokens[count:], start=start, embeddings=embeddings, wanted=())


def _join(begun: Sequence[Begun | None], fresh: Tensor, rest: Sequence[Rows]) -> Tensor:
    """Rows of all entries in order: of each the begun ones, then the fresh ones."""
    parts = []
    for known, rows in zip(begun, torch.split(fresh, [len(r.tokens) for r in rest]), strict=True):
        parts += [known.hidden.to(rows.dtype), rows] if known is not None else [rows]
    return torch.cat(parts)
