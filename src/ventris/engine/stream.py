"""One sequence in one model: its cache, what is committed, and what still has to be fed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from torch import Tensor

from ventris.engine.begun import Begun, forward_from_begun
from ventris.engine.cache import KVCache
from ventris.engine.footprint import Footprint
from ventris.engine.ledger import PASSES, MemoryLedger
from ventris.engine.target import Rows, Target
from ventris.engine.tree import TokenTree

EMBEDDED = -1
"""Stands in a list of tokens for a position whose input row is given as an embedding."""


class Stream:
    """A model's view of a request: the target has one, and so has every draft or guide model.

    ``pending`` are the committed tokens whose rows are not in the cache yet; its last one is the root
    of the next tree. A stream that was not used for a while simply has more of them: catching up is one
    forward over several tokens.

    Args:
        target: The model.
        prompt: Tokens to start from, at least one; :data:`EMBEDDED` where ``embeddings`` has a row.
        embeddings: Input rows by position, each ``[hidden]``.
        cache: A cache that already holds the first tokens of the prompt (at most all but one).
        capacity: Rows to make room for.
    """

    def __init__(
        self,
        target: Target,
        prompt: Sequence[int],
        embeddings: dict[int, Tensor] | None = None,
        cache: KVCache | None = None,
        capacity: int = 64,
        ledger: MemoryLedger | None = None,
        owner: str = "target",
    ) -> None:
        self.target = target
        self.cache = cache if cache is not None else target.new_cache(capacity, ledger, owner)
        self.pending = list(prompt[self.cache.length :])
        self._embeddings = embeddings or {}
        self._tree: TokenTree | None = None
        self._row_of: list[int] = []
        self._parents: list[int] = []
        self._lead = 0
        self.begun: Begun | None = None

    def feed(self, count: int) -> Rows:
        """Rows that put the first ``count`` pending tokens into the cache, no logits wanted.

        At least one token must stay pending; call :meth:`fed` after the forward.
        """
        self.discard()
        tokens = self.pending[:count]
        return Rows(self.cache, tokens, range(-1, count - 1), 0, self._inputs(tokens), ())

    def fed(self, count: int) -> None:
        """Commit what :meth:`feed` ran."""
        self.cache.commit(range(count))
        del self.pending[:count]

    def rows(self, tree: TokenTree, nodes: Sequence[int]) -> Rows:
        """Rows that score ``nodes`` of ``tree`` (ascending; the root in the first call of a step).

        The first call runs all pending tokens, of which the root is the last. Later calls in the same
        step may run further nodes below the ones already run.

        Where a drafter has begun with some nodes (see :mod:`ventris.engine.begun`), the root may come once
        more: all nodes are then run, and those that have been begun go on from there.
        """
        if self.begun is not None and 0 in nodes:
            self._take_up(tree)
        start = len(self._parents)
        tokens: list[int] = []
        if start == 0:
            self._lead = len(self.pending) - 1
            tokens += self.pending[:-1]
            self._parents += range(-1, self._lead - 1)
            self._row_of = [-1] * len(tree)
            self._tree = tree
        elif len(self._row_of) < len(tree):
            self._row_of += [-1] * (len(tree) - len(self._row_of))
        lead = len(tokens)
        for node in nodes:
            self._row_of[node] = len(self._parents)
            self._parents.append(self._row_of[tree.parents[node]] if node else self._lead - 1)
            tokens.append(tree.tokens[node])
        wanted = range(lead, len(tokens))
        return Rows(self.cache, tokens, self._parents, start, self._inputs(tokens), wanted)

    def _take_up(self, tree: TokenTree) -> None:
        """Begin the step's rows anew, and of the begun ones keep those that are of ``tree`` too."""
        if self.begun is not None and self._tree is not None:
            known = range(min(len(self.begun) - self._lead, len(tree)))
            same = (
                tree.tokens[node] == self._tree.tokens[node]
                and tree.parents[node] == self._tree.parents[node]
                and self._row_of[node] == self._lead + node
                for node in known
            )
            kept = sum(1 for _ in takewhile(bool, same))
            self.begun = self.begun.first(self._lead + kept)
        self._parents = []

    @property
    def lead(self) -> int:
        """Pending tokens before the root in the first call of :meth:`rows`."""
        return self._lead

    def advance(self, tree: TokenTree, path: Sequence[int], next_token: int) -> None:
        """Move on by an accepted path of ``tree`` (node 0 first) and the token after it.

        Keeps the cache rows of the path as far as this stream has run it; the rest becomes pending. The
        tree need not be the one that this stream scored: its path is then followed by tokens.
        """
        tokens = [tree.tokens[node] for node in path]
        self.begun = None
        if not self._parents or self._tree is None:
            self.pending += tokens[1:]
            self.pending.append(next_token)
            return
        own = path if tree is self._tree else _follow(self._tree, tokens)
        rows = [self._row_of[node] for node in own if node < len(self._row_of)]
        run = next((place for place, row in enumerate(rows) if row < 0), len(rows))
        self.cache.commit([*range(self._lead), *rows[:run]])
        self.pending = [*tokens[run:], next_token]
        self._parents = []

    def discard(self) -> None:
        """Forget the nodes scored since the last :meth:`advance`."""
        self._parents = []
        self.begun = None

    def rewind(self, length: int, tokens: Sequence[int]) -> None:
        """Keep the first ``length`` cached rows and go on with ``tokens`` (at least one) as pending."""
        self.discard()
        self.cache.truncate(length)
        self.pending = list(tokens)

    def fork(self) -> Stream:
        """A second stream at the same place; the cache is copied on write."""
        twin = Stream(self.target, self.pending, self._embeddings, self.target.new_cache(1))
        twin.cache = self.cache.fork()
        return twin

    def _inputs(self, tokens: Sequence[int]) -> Tensor | None:
        if not self._embeddings or EMBEDDED not in tokens:
            return None
        first = self.cache.next_position
        rows = self.target.embed([Rows(self.cache, [max(t, 0) for t in tokens], range(-1, len(tokens) - 1))])
        for offset, token in enumerate(tokens):
            if token == EMBEDDED:
                rows[offset] = self._embeddings[first + offset].to(rows.dtype)
        return rows


def _follow(tree: TokenTree, tokens: Sequence[int]) -> list[int]:
    """Nodes of ``tree`` along ``tokens`` (the root's first), as far as it goes."""
    path = [0]
    below = tree.children()
    for token in tokens[1:]:
        child = next((c for c in below[path[-1]] if tree.tokens[c] == token), None)
        if child is None:
            break
        path.append(child)
    return path


@dataclass(slots=True)
class ForwardResult:
    """Logits and tapped hidden rows of one entry of :func:`forward`.

    Attributes:
        logits: ``[wanted nodes, vocab]``.
        hidden: Rows of all of the entry's nodes by tapped layer, ``[nodes, hidden]``.
    """

    logits: Tensor
    hidden: dict[int, Tensor]


def forward(entries: Sequence[tuple[Stream, Rows, Sequence[int]]]) -> list[ForwardResult]:
    """Run rows of several streams, those of one model in one pass.

    Args:
        entries: Stream, its rows, and the layers to tap for it.

    Raises:
        MemoryError: if a cache cannot grow, or the passes do not fit. The streams have forgotten this step's
            tree then, as after :meth:`Stream.discard`: none of its rows may be taken for run.
    """
    try:
        with ExitStack() as stack:
            for ledger, size in _passes([rows for _, rows, _ in entries], [s.target for s, _, _ in entries]):
                stack.enter_context(ledger.holding(PASSES, size))
            return _forward(entries)
    except MemoryError:
        for stream, _, _ in entries:
            stream.discard()
        raise


def _passes(batch: Sequence[Rows], targets: Sequence[Target]) -> Iterator[tuple[MemoryLedger, int]]:
    """What rows take besides the caches, for ledgers with a limit; logits of one model stay for the next."""
    for rows, target in zip(batch, targets, strict=True):
        if rows.cache.ledger.limit is not None:
            yield rows.cache.ledger, Footprint.of(target).rows([rows])


def catch_up(stream: Stream, most: int) -> None:
    """Feed pending tokens in passes of ``most``, until no more than that are left for the next pass.

    Raises:
        MemoryError: as :func:`forward`.
    """
    while len(stream.pending) > most:
        forward([(stream, stream.feed(most), ())])
        stream.fed(most)


def _forward(entries: Sequence[tuple[Stream, Rows, Sequence[int]]]) -> list[ForwardResult]:
    groups: dict[int, list[int]] = {}
    for index, (stream, _, _) in enumerate(entries):
        groups.setdefault(id(stream.target), []).append(index)
    results: dict[int, ForwardResult] = {}
    for members in groups.values():
        taps = sorted({layer for index in members for layer in entries[index][2]})
        target = entries[members[0]][0].target
        batch = [entries[index][1] for index in members]
        begun = _begun_of([entries[index] for index in members])
        known = any(rows is not None for rows in begun)
        scores = forward_from_begun(target, batch, begun, taps) if known else target.forward(batch, taps)
        offset = 0
        for index, logits in zip(members, scores.logits, strict=True):
            count = len(entries[index][1].tokens)
            rows = slice(offset, offset + count)
            results[index] = ForwardResult(logits, {layer: h[rows] for layer, h in scores.hidden.items()})
            offset += count
    return [results[index] for index in range(len(entries))]


def begin(entries: Sequence[tuple[Stream, TokenTree, Sequence[int]]], layer: int) -> list[Tensor]:
    """Run nodes through the layers before ``layer``, those of all streams in one pass.

    Args:
        entries: A stream of the target, a tree that grows, and its new nodes (see :meth:`Stream.rows`).

    Returns:
        For each entry the inputs of ``layer`` for the rows that were run, ``[rows, hidden]``: pending tokens
        before the root come first.

    Raises:
        Incompatible: if the target cannot run some of its layers.
        MemoryError: if the pass does not fit.
    """
    batch = [replace(stream.rows(tree, nodes), wanted=()) for stream, tree, nodes in entries]
    target = entries[0][0].target
    with ExitStack() as stack:
        for ledger, size in _passes(batch, [target] * len(batch)):
            stack.enter_context(ledger.holding(PASSES, size))
        hidden, _ = target.run_layers(batch, target.embed(batch), 0, layer)
    parts = list(torch.split(hidden, [len(rows.tokens) for rows in batch]))
    for (stream, _, _), rows in zip(entries, parts, strict=True):
        before = [stream.begun.hidden] if stream.begun is not None else []
        stream.begun = Begun(layer, torch.cat([*before, rows]))
    return parts


def _begun_of(entries: Sequence[tuple[Stream, Rows, Sequence[int]]]) -> list[Begun | None]:
    """What can be taken up of each entry: rows at one and the same layer, none of whose inputs are missed."""
    layer = next((stream.begun.layer for stream, _, _ in entries if stream.begun is not None), 0)
    return [
        stream.begun
        if stream.begun is not None and stream.begun.layer == layer <= min(taps, default=layer)
        else None
        for stream, _, taps in entries
    ]
