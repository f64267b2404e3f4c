"""What happened in a generation, step by step; cheap enough to leave on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ventris.engine.sampling import Row, most_probable
from ventris.engine.tree import TokenTree
from ventris.engine.walk import Walk

Candidates = list[tuple[int, float]]
"""Token ids with their log-probabilities, best first."""

Summarize = Callable[[Row, int], Candidates]


@dataclass(slots=True)
class Visit:
    """A node at which the target was asked for the next token.

    Attributes:
        node: Index in the step's tree.
        candidates: The target's best tokens, before penalties and guides.
        guided: The same after them, or ``None`` where nothing changed.
        token: The token taken here.
        source: Which part the token came from: a drafter's name, ``"target"``, a guide, a judge.
        log_probability: Of the token taken, in the guided distribution at temperature 1.
    """

    node: int
    candidates: Candidates
    guided: Candidates | None
    token: int
    source: str
    log_probability: float


@dataclass(slots=True)
class StepTrace:
    """One step: what was drafted, what the target thought, what was taken.

    Attributes:
        tokens, parents, confidence, drafter: The scored tree; node 0 is the last token before it.
        path: Accepted nodes, the root first.
        visits: The nodes visited on the way, one for every token taken.
        seconds: Time by part: draft, target, guide, verify, other.
        batch: Requests that shared the forward.
    """

    tokens: Sequence[int]
    parents: Sequence[int]
    confidence: Sequence[float]
    drafter: str
    path: Sequence[int]
    visits: list[Visit]
    seconds: dict[str, float] = field(default_factory=dict)
    batch: int = 1


@dataclass(slots=True)
class Trace:
    """The steps of one request.

    Args:
        width: Candidates kept at each visited node.
        summarize: Finds them in a row of logits; runtimes may bring a faster one.
    """

    width: int = 5
    summarize: Summarize = most_probable
    steps: list[StepTrace] = field(default_factory=list)

    def record(self, tree: TokenTree, walk: Walk, batch: int) -> StepTrace:
        """Add a step from its finished walk."""
        visits = []
        for (node, raw, row), token, source in zip(walk.visited, walk.taken, walk.sources, strict=False):
            candidates = self.summarize(raw, self.width)
            guided = None if row is raw else self.summarize(row, self.width)
            seen = candidates if guided is None else guided
            known = next((value for candidate, value in seen if candidate == token), None)
            if known is None:
                # The best candidate's log-probability gives the normaliser without another pass.
                best, value = seen[0]
                known = float(row[token] - row[best]) + value
            visits.append(Visit(node, candidates, guided, token, source, known))
        step = StepTrace(
            tree.tokens, tree.parents, tree.confidence, tree.source, walk.path, visits, batch=batch
        )
        self.steps.append(step)
        return step
