"""The walk from the root of a scored tree: guides answer only at the nodes that a verifier visits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ventris.engine.errors import BrokenModel
from ventris.engine.parts import GuideState, RequestView
from ventris.engine.randomness import Purpose, Randomness
from ventris.engine.sampling import Row, SamplingState, distribution, greedy_token
from ventris.engine.stream import Stream
from ventris.engine.tree import TokenTree


class DeadEnd(BrokenModel):
    """A guide left no token to choose from."""


class Walk:
    """One request's scored tree, as a verifier sees it.

    The verifier reads :attr:`node` (where it stands), :meth:`argmax` or :meth:`probs` (the guided target's
    choice there), the drafted children, and calls :meth:`take` with the token it decided on, until
    :attr:`open` is false. Guides and penalties move forward with every token taken, so their answer is
    always for the prefix that ends at the present node, and nothing ever has to be rolled back.

    Args:
        tree: The tree that was scored.
        logits: The target's logits, ``[nodes, vocab]``.
        request: The request.
        sampling: Its prefix-dependent sampling state.
        guides: Names and states of its guides, in the order of application.
        hidden: Tapped hidden rows by layer, ``[nodes, hidden]``.
        stream_logits: Logits of the guides' own streams, by ``id``, ``[nodes, vocab]``.
        recorded: Somebody will read :attr:`visited`, so that every token taken needs its visit there.
    """

    def __init__(
        self,
        tree: TokenTree,
        logits: Tensor,
        request: RequestView,
        sampling: SamplingState,
        guides: Sequence[tuple[str, GuideState]] = (),
        hidden: dict[int, Tensor] | None = None,
        stream_logits: dict[int, Tensor] | None = None,
        recorded: bool = True,
    ) -> None:
        self.tree = tree
        self.request = request
        self.node = 0
        self.path = [0]
        self.taken: list[int] = []
        self.sources: list[str] = []
        self.visited: list[tuple[int, Row, Row]] = []
        self.recorded = recorded
        self.open = True
        self.accepted = 0
        self.guide_seconds = 0.0
        self._rows = logits.detach().cpu().numpy()
        self._sampling = sampling
        self._guides = guides
        self._hidden = hidden or {}
        self._streams = stream_logits or {}
        self._children = tree.children()
        self._row: Row | None = None
        self._randomness: dict[Purpose, Randomness] = {}
        self._remaining = request.remaining
        self.clock: Callable[[], float] | None = None

    # What the target and the guides say at the present node.

    def logits(self) -> Row:
        """Adjusted logits ``[vocab]`` of the token after the present node; computed once a node.

        Raises:
            DeadEnd: if a guide forbids every token, naming the guide.
            BrokenModel: if the target's logits are NaN.
        """
        if self._row is None:
            raw = self._rows[self.node]
            self._row = self._adjusted(raw, self._sampling, self._guides)
            self.visited.append((self.node, raw, self._row))
        return self._row

    def _adjusted(self, raw: Row, sampling: SamplingState, guides: Sequence[tuple[str, GuideState]]) -> Row:
        row = raw if sampling.idle else sampling.adjust(raw)
        if not guides:
            return row
        started = self.clock() if self.clock else 0.0
        logits = torch.from_numpy(row.copy() if row is raw else row)
        for name, state in guides:
            logits = state.adjust(logits, self)
            # By numpy: torch would wake its threads for this, against those of the native runtime.
            best = logits.numpy().max()
            if np.isnan(best):
                raise BrokenModel(f"logits turned NaN in guide {name!r} or in the model before it")
            if best == -np.inf:
                raise DeadEnd(f"guide {name!r} allows no token after {len(self.request.tokens)} tokens")
        if self.clock:
            self.guide_seconds += self.clock() - started
        return logits.numpy()

    def argmax(self) -> int:
        """The guided target's most probable token here."""
        if self._row is None and self._guides and not self.recorded:
            token = self._best_under_masks()
            if token is not None:
                return token
        return greedy_token(self.logits())

    def _best_under_masks(self) -> int | None:
        """The most probable token that every guide leaves, if all of them know it and agree.

        A token that is the best under each mask is the best under all; nothing need be masked then.
        """
        finders = [getattr(state, "best", None) for _, state in self._guides]
        if None in finders:
            return None
        started = self.clock() if self.clock else 0.0
        raw = self._rows[self.node]
        row = raw if self._sampling.idle else self._sampling.adjust(raw)
        found = {find(row) for find in finders if find is not None}
        if self.clock:
            self.guide_seconds += self.clock() - started
        return found.pop() if len(found) == 1 else None

    def probs(self) -> Tensor:
        """The guided and warped distribution of the next token here, ``[vocab]``."""
        return distribution(self.logits(), self._sampling.sampling)

    def look_ahead(self, chain: Sequence[int]) -> list[Tensor]:
        """Distributions at the present node and after each node of a drafted chain below it.

        For rules that judge a draft as a whole. Guides must be able to fork, since their answers are
        wanted for tokens that may yet be refused.

        The list ends before the first node behind which a guide fails: only a text that gets there is to
        hear of it, from :meth:`probs`.
        """
        sampling = self._sampling.fork()
        guides = [(name, state.fork()) for name, state in self._guides]  # type: ignore[attr-defined]
        here, known = self.node, len(self.request.tokens)
        result = [self.probs()]
        try:
            for node in chain:
                token = self.tree.tokens[node]
                sampling.advance(token)
                self.request.tokens.append(token)
                for _, state in guides:
                    state.advance(token)
                self.node = node
                row = self._adjusted(self._rows[node], sampling, guides)
                result.append(distribution(row, sampling.sampling))
        except Exception:
            return result
        finally:
            self.node = here
            del self.request.tokens[known:]
        return result

    # What was drafted below it.

    def children(self) -> list[int]:
        """Drafted nodes below the present node, in the order the drafter added them."""
        return self._children[self.node]

    def has_children(self, node: int) -> bool:
        """True if anything was drafted below ``node``."""
        return bool(self._children[node])

    def draws(self) -> list[int]:
        """Children in the order in which they were drawn, with repeats; empty for point-mass drafts."""
        return self.tree.draws.get(self.node, [])

    def draft_probs(self) -> Tensor:
        """The distribution that the children were drawn from, ``[vocab]``."""
        return self.tree.draft_probs[self.node]

    def randomness(self, purpose: Purpose) -> Randomness:
        """The random draws for the token after the present node; one sequence a purpose and node."""
        if purpose not in self._randomness:
            self._randomness[purpose] = self.request.randomness(purpose)
        return self._randomness[purpose]

    # NodeView, for guides.

    def hidden(self, layer: int) -> Tensor:
        """The target's hidden row at the present node, ``[hidden]``."""
        return self.tapped(layer)[self.node]

    def logits_of(self, stream: Stream) -> Tensor:
        """A guide stream's logits at the present node, ``[vocab]``."""
        return self._streams[id(stream)][self.node]

    # For verifiers that look at more than probabilities.

    def tapped(self, layer: int) -> Tensor:
        """The target's hidden rows at a tapped layer, ``[nodes, hidden]``; each has read its node's token."""
        return self._hidden[layer]

    # Moving on.

    def take(self, token: int, source: str = "") -> None:
        """Decide on the token after the present node.

        If a child carries it the walk goes down to that child; otherwise, or at an end token or the
        length limit, the walk is closed. ``source`` overrides what the trace says of the token's origin.
        """
        if self.recorded:
            # Every token taken has its visit, also where a rule decided without looking here.
            self.logits()
        child = next((c for c in self._children[self.node] if self.tree.tokens[c] == token), None)
        drafted = child is not None
        self.accepted += drafted
        self.sources.append(source or (self.tree.source if drafted else "target"))
        self.taken.append(token)
        self.request.tokens.append(token)
        self._sampling.advance(token)
        self._row = None
        self._randomness = {}
        if token in self.request.end_ids:
            self.open = False
            return
        for _, state in self._guides:
            state.advance(token)
        if child is None or len(self.taken) >= self._remaining:
            self.open = False
            return
        self.node = child
        self.path.append(child)
