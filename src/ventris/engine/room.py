"""What fits into a memory limit: which requests, how much of their prompts, and how many drafts.

A request is let in once everything is reserved that it needs to go on to its end without drafts: the rows of
its whole text, and what a pass takes that scores one node. Drafts get what is left. So none fails half-way;
with little memory drafts become fewer, and then there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ventris.engine.errors import OverBudget
from ventris.engine.footprint import SCRATCH_ROWS, Footprint, weight_bytes
from ventris.engine.ledger import WEIGHTS, MemoryLedger
from ventris.engine.parts import MOST_DRAFTS, GuideState, RequestView
from ventris.engine.request import Request
from ventris.engine.step import Running
from ventris.engine.stream import Stream
from ventris.engine.target import Target

HIDDEN_ROWS = "hidden rows"
"""Owner of what drafters remember of the target's hidden rows until they are asked."""


class Room:
    """Divides the memory of one engine.

    Args:
        target: The model that decides.
        ledger: Books it; without a limit everything fits.
    """

    def __init__(self, target: Target, ledger: MemoryLedger) -> None:
        self.target = target
        self.ledger = ledger
        self.footprint = Footprint.of(target)
        self._weighed: dict[int, Any] = {}

    # Requests.

    def check(self, request: Request, tokens: int) -> None:
        """Refuse a request that would not fit even if it were alone, drafts left out.

        Args:
            tokens: What its prompt and answer may come to.

        Raises:
            OverBudget: with the bytes that it needs.
        """
        limit = self.ledger.limit
        if limit is None:
            return
        weights = self._weights(request)
        needed = weights + self.footprint.request(tokens)
        for model in (model for guide in request.guides for model in getattr(guide, "models", ())):
            of_guide = Footprint.of(model)
            needed += of_guide.cache(tokens + SCRATCH_ROWS) + of_guide.step
        if needed > limit:
            of_weights = f", {weights:,} of them for weights" if weights else ""
            raise OverBudget(
                f"prompt and answer of {tokens} tokens need {needed:,} bytes{of_weights}, and the memory "
                f"budget is {limit:,}; raise it or ask for a shorter answer"
            )

    def weigh(self, request: Request) -> None:
        """Book the weights of a request's models that are not booked yet.

        Raises:
            MemoryError: if they do not fit beside what is in use.
        """
        if self.ledger.counts_weights:
            self.ledger.charge(WEIGHTS, self._weights(request) - self.ledger.held.get(WEIGHTS, 0))
            self._weighed |= _models(self.target, request)

    def forget_weights(self) -> None:
        """Take the weights off the books."""
        self.ledger.charge(WEIGHTS, -self.ledger.held.get(WEIGHTS, 0))
        self._weighed = {}

    def _weights(self, request: Request) -> int:
        """Bytes of all weights once this request is there too."""
        if not self.ledger.counts_weights:
            return 0
        return weight_bytes([*(self._weighed | _models(self.target, request)).values()])

    def least(self, rows: int, guides: Iterable[tuple[str, GuideState]] = ()) -> int:
        """Bytes that a request needs besides its guides' caches, with ``rows`` rows of its own."""
        return 0 if self.ledger.limit is None else self.footprint.cache(rows + 1) + self._standing(guides)

    def crowded(self, rows: int) -> bool:
        """True if what is left does not hold such a request with as many drafts as usual."""
        left = self.ledger.left
        return left is not None and self.footprint.request(rows, SCRATCH_ROWS) > left

    def scratch(self, rows: int, guides: Iterable[tuple[str, GuideState]]) -> int:
        """Rows for trees behind ``rows`` of a text: as many as usual, or as fit."""
        left = self.ledger.left
        if left is None:
            return SCRATCH_ROWS
        spare = left - self.footprint.cache(rows + 1) - self._standing(guides)
        each = self.footprint.row + _scored(self.footprint, guides)
        return max(min(SCRATCH_ROWS, 1 + spare // each), 1)

    def hidden(self, view: RequestView, taps: Sequence[int]) -> int:
        """Bytes of hidden rows that a drafter with ``taps`` may gather before it drafts."""
        return 0 if self.ledger.limit is None else view.rows * len(taps) * self.footprint.hidden

    # Steps.

    def standing(self, running: Running) -> int:
        """Bytes that are kept so that a request can make a step without drafts."""
        return 0 if self.ledger.limit is None else self._standing(running.guides)

    def _standing(self, guides: Iterable[tuple[str, GuideState]]) -> int:
        return self.footprint.step + sum(Footprint.of(stream.target).step for stream in _streams(guides))

    def chunk(self, running: Sequence[Running], most: int) -> int:
        """Prompt tokens of a step, at least one: as many as fit if nothing is drafted."""
        left = self.ledger.left
        if left is None or not running:
            return most
        streams = [stream for each in running for stream in _streams(each.guides)]
        each = self.footprint.passed + sum(Footprint.of(stream.target).passed for stream in streams)
        return max(min(most, 1 + left // each), 1)

    def drafts(self, deciding: Sequence[Running], others: int, chunk: int) -> int:
        """Drafted nodes for each deciding request that fit into memory, whatever else the step does.

        Args:
            others: Rows of the target's pass besides the trees.
            chunk: Tokens that each stream of a guide may read.
        """
        left = self.ledger.left
        if left is None or not deciding:
            return MOST_DRAFTS
        spare = left - self._reading(deciding, others, chunk)
        each = sum(self._drafted(running) for running in deciding)
        return max(min(spare // each, *(running.scratch - 1 for running in deciding)), 0)

    def step(self, deciding: Sequence[Running], others: int, chunk: int, drafts: int) -> int:
        """Bytes that the passes of a step may take besides what is kept at all times."""
        left = self.ledger.left
        if left is None or not deciding:
            return 0
        drafted = drafts * sum(self._drafted(running) for running in deciding)
        return max(min(self._reading(deciding, others, chunk) + drafted, left), 0)

    def _reading(self, deciding: Sequence[Running], others: int, chunk: int) -> int:
        streams = [stream for running in deciding for stream in _streams(running.guides)]
        lead = sum(min(len(stream.pending), chunk) * Footprint.of(stream.target).passed for stream in streams)
        return others * self.footprint.passed + lead

    def _drafted(self, running: Running) -> int:
        """Bytes of a drafted node: scored in a tree, and as many rows that a guide dictates before it."""
        request = running.request
        drawn = running.drafter is not None and running.drafter.draws and not request.sampling.greedy
        probabilities = self.footprint.distribution if drawn else 0
        return _scored(self.footprint, running.guides) + self.footprint.passed + probabilities


def _streams(guides: Iterable[tuple[str, GuideState]]) -> list[Stream]:
    return [stream for _, state in guides for stream in getattr(state, "streams", ())]


def _scored(footprint: Footprint, guides: Iterable[tuple[str, GuideState]]) -> int:
    """Bytes of a node that the target and the guides' models score."""
    return footprint.scored + sum(Footprint.of(stream.target).scored for stream in _streams(guides))


def _models(target: Target, request: Request) -> dict[int, Any]:
    """All models that a request runs on, by identity."""
    parts = [request.drafter, *request.guides]
    return {id(m): m for m in (target, *(m for part in parts for m in getattr(part, "models", ())))}
