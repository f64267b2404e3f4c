"""The contracts of drafters, guides and policies; see :mod:`ventris.engine.verifier` for that of verifiers.

All parts are shared by many requests. What a part remembers about one request lives in the state object
that its ``start`` returns; the engine keeps that object with the request and hands it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ventris.engine.footprint import LONGEST_FIRST_BLOCK, SCRATCH_ROWS
from ventris.engine.ledger import MemoryLedger
from ventris.engine.randomness import PLACE, PositionRandomness, Purpose
from ventris.engine.sampling import Sampling
from ventris.engine.stream import Stream
from ventris.engine.target import Target
from ventris.engine.tree import TokenTree


@dataclass(slots=True)
class RequestView:
    """What a part may know about the request it serves.

    Attributes:
        prompt: Prompt tokens (-1 where an embedding stands).
        tokens: Prompt and output so far, the same list all along; read it, never write it.
        ledger: Where caches that the part opens are booked.
        draft_purpose: Which random draws a sampling drafter uses. Normally its own; where the verifier
            always keeps the target's own draw (``draft_purpose`` of a verifier), the target's, so that draft
            and target tend to choose alike.
        keep_beliefs: The verifier reads :attr:`TokenTree.beliefs`.
    """

    target: Target
    prompt: Sequence[int]
    tokens: list[int]
    sampling: Sampling
    max_new_tokens: int
    end_ids: frozenset[int]
    ledger: MemoryLedger
    draft_purpose: Purpose = Purpose.DRAFT
    keep_beliefs: bool = False

    @property
    def rows(self) -> int:
        """Cache rows to reserve for the text: all that it may come to where memory is limited."""
        output = self.max_new_tokens
        if self.ledger.limit is None:
            output = min(output, LONGEST_FIRST_BLOCK)
        return len(self.prompt) + output

    def stream(self, model: Target, owner: str, prompt: Sequence[int] | None = None) -> Stream:
        """The request in a further model, with room for its text and the trees behind it.

        Args:
            prompt: The prompt as a model of another vocabulary writes it.

        Raises:
            MemoryError: if memory is limited and the rows do not fit.
        """
        tokens = list(self.prompt if prompt is None else prompt)
        rows = self.rows + len(tokens) - len(self.prompt)
        # A text longer than the model's context can only be gone along with so far.
        capacity = min(rows, model.context_length) + SCRATCH_ROWS
        return Stream(model, tokens, capacity=capacity, ledger=self.ledger, owner=owner)

    @property
    def generated(self) -> int:
        """Output tokens so far."""
        return len(self.tokens) - len(self.prompt)

    @property
    def remaining(self) -> int:
        """Output tokens still allowed."""
        return self.max_new_tokens - self.generated

    def randomness(self, purpose: Purpose, ahead: int = 0) -> PositionRandomness:
        """The draws for the output token ``ahead`` places after the next one.

        Those of a draft belong to the step that drafts. A rule that judges a draft as a whole has looked at
        all of it; were a place of it drafted anew with the same number, that draw would be known to be a bad
        one, say, and the text would not have the target's law.
        """
        if purpose == Purpose.DRAFT:
            return PositionRandomness(self.sampling.seed, purpose, self.generated, ahead * PLACE)
        return PositionRandomness(self.sampling.seed, purpose, self.generated + ahead)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a drafter may propose: ``nodes`` besides the root, at most ``depth`` deep.

    A drafter that asks its model token by token goes no further where it gives its best next token less
    than ``confidence``; that token is not proposed.
    """

    nodes: int
    depth: int
    confidence: float = 0.0

    def minimum(self, other: Budget) -> Budget:
        confidence = max(self.confidence, other.confidence)
        return Budget(min(self.nodes, other.nodes), min(self.depth, other.depth), confidence)


NO_DRAFT = Budget(0, 0)


# ---------------------------------------------------------------------------------------- drafters


@dataclass(slots=True)
class DraftJob:
    """One request that wants a draft.

    Attributes:
        state: What :meth:`Drafter.start` returned for it.
        budget: Upper limits; a drafter may propose less, or a bare root.
        root: The last committed token.
        guides: Guide states to prune the draft with, forked already at the root, or empty; a drafter
            may ignore them.
        stream: The request's rows in the target, for a drafter that runs the target's own first layers (see
            :mod:`ventris.engine.begun`).
    """

    request: RequestView
    state: Any
    budget: Budget
    root: int
    guides: Sequence[GuideState] = ()
    stream: Stream | None = None


@dataclass(slots=True)
class Commit:
    """What the loop kept in a step, told to drafters.

    Attributes:
        tree: The verified tree; ``None`` while the prompt is being read.
        path: Accepted nodes, the root first; empty while the prompt is being read.
        next_token: The token after the path, the next root; ``None`` while the prompt is being read.
        tokens: Tokens whose rows entered the target's cache in this step.
        hidden: For each layer in :attr:`Drafter.taps`, the hidden rows of ``tokens``, ``[n, hidden]``.
        logits: What the target said at the nodes of ``tree``, before penalties and guides,
            ``[nodes, vocab]``; ``None`` where it was not asked. Copy what has to last.
    """

    tree: TokenTree | None
    path: Sequence[int]
    next_token: int | None
    tokens: Sequence[int]
    hidden: dict[int, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None


@runtime_checkable
class Drafter(Protocol):
    """Answers: what may come next?

    Attributes:
        name: As in the registry.
        shape: ``"chain"`` if every tree it proposes is a single path, else ``"tree"``.
        draws: True if it samples its tokens and records ``draft_probs``; false for point-mass drafts.
        taps: Target layers whose hidden rows it wants in :class:`Commit`.

    An optional method ``finish(state)`` is called when the request ends, to give memory back. An optional
    attribute ``tells_beliefs`` says that its trees have :attr:`TokenTree.beliefs` where they are asked for.
    An optional attribute ``models`` lists what else it computes with; a memory budget counts their
    ``weight_bytes``.
    Where memory is limited, ``start`` and ``propose`` may raise :class:`MemoryError`: the request then goes
    on without drafts, for good or for one step.
    """

    name: str
    shape: str
    draws: bool
    taps: Sequence[int]

    def start(self, request: RequestView) -> Any:
        """State for a new request."""
        ...

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        """A tree for each job; ``TokenTree.root(job.root)`` where there is nothing to say."""
        ...

    def observe(self, state: Any, commit: Commit) -> None:
        """Learn what was kept; called once a step for every request, drafted or not."""
        ...


# ------------------------------------------------------------------------------------------ guides


@dataclass(slots=True)
class Needs:
    """Extra work that a guide asks for before the forward, run in the same batch.

    Attributes:
        streams: Streams of its own whose models score the same tree.
        taps: Target layers whose hidden rows it reads.
    """

    streams: Sequence[Stream] = ()
    taps: Sequence[int] = ()


class NodeView(Protocol):
    """What a guide may read about the node it adjusts."""

    @property
    def request(self) -> RequestView: ...

    def hidden(self, layer: int) -> Tensor:
        """The target's hidden row at a tapped layer, ``[hidden]``."""
        ...

    def logits_of(self, stream: Stream) -> Tensor:
        """Logits of a stream of the guide's own at the same node, ``[vocab]``."""
        ...


class GuideState(Protocol):
    """A guide's memory for one request: a function of the prefix, moved forward token by token.

    It only ever moves over *kept* tokens, so it needs no rollback. Optional further members:

    - ``fork() -> GuideState``: an independent copy, so that a drafter can be guided;
    - ``allowed(width) -> bool [width]`` and ``following(tokens) -> (tokens, complete)``: for a mask, which of
      the model's tokens may follow, and which of some may, or the only one of all (then ``complete``);
      drafters that are ``guided`` ask their copies, so it may leave out what takes long to find;
    - ``streams``, ``needs(tree) -> Needs``: extra forwards and hidden rows;
    - ``forced() -> list[int]``: tokens that must come next, each the only one that :meth:`adjust` leaves;
      they become a free draft, or are taken at once if nobody else has a say;
    - ``best(row) -> int | None``: for a mask, the largest of the logits ``row: [vocab]`` that it leaves, the
      first of equals; spares masking all of them where that is easy to say;
    - ``prune(tree) -> list[int]``: the nodes of a draft, parents first and the root always, that may come
      at all; the others are not scored;
    - ``valid -> bool``: whether the text so far satisfies the guide.
    """

    def adjust(self, logits: Tensor, view: NodeView) -> Tensor:
        """Logits ``[vocab]`` of the token after the present prefix; may change them in place."""
        ...

    def advance(self, token: int) -> None:
        """The prefix grew by one token."""
        ...


@runtime_checkable
class Guide(Protocol):
    """Answers: what should the distribution be instead?

    Attributes:
        name: As in the registry.
        masks: True if it forbids tokens; such guides are applied after those that do arithmetic.

    An optional attribute ``models`` lists the models that its states run; a memory budget counts them.
    """

    name: str
    masks: bool

    def start(self, request: RequestView) -> GuideState:
        """State for a new request."""
        ...


# ---------------------------------------------------------------------------------------- policies


@dataclass(slots=True)
class DraftRecord:
    """One request as a policy sees it.

    Attributes:
        memory: What the policy wants to remember about the request; ``None`` at first.
    """

    request: RequestView
    drafter: str
    memory: Any = None


@dataclass(frozen=True, slots=True)
class DraftCall:
    """What one call of a drafter took.

    Attributes:
        depth: Levels of the deepest tree that it proposed.
        nodes: Drafted tokens of all its trees.
    """

    depth: int
    nodes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StepCost:
    """What a step took, for policies that predict the next one.

    Attributes:
        running: Requests that decoded.
        nodes: Rows of the target's pass: roots, drafts and prompt tokens.
        context: Committed rows behind them, of all requests together.
        seconds: Scoring and verifying, drafting left out.
        drafts: The calls of drafters, by name.
    """

    running: int
    nodes: int
    context: int
    seconds: float
    drafts: Mapping[str, DraftCall]


MOST_DRAFTS = 1 << 30
"""Stands for no limit on drafted nodes."""


@dataclass(slots=True)
class Load:
    """The batch as a policy sees it.

    Attributes:
        running: Requests that decode in this step.
        other_nodes: Nodes of the step that the policy has no say in (prompt chunks).
        memory_left: Bytes left in the ledger, ``None`` without a limit.
        draft_seconds: Running mean of what a drafting call took, by drafter.
        last: The step before this one, ``None`` at first; the same object until a further step is done.
        drafts: Drafted nodes of each request that fit into memory; the engine allows no more.
    """

    running: int
    other_nodes: int = 0
    memory_left: int | None = None
    draft_seconds: dict[str, float] = field(default_factory=dict)
    last: StepCost | None = None
    drafts: int = MOST_DRAFTS


@runtime_checkable
class Policy(Protocol):
    """Answers: how much to draft, and when to spend more?"""

    name: str

    def plan(self, records: Sequence[DraftRecord], load: Load) -> list[Budget]:
        """Before drafting: a budget for each request."""
        ...

    def trim(self, records: Sequence[DraftRecord], trees: Sequence[TokenTree], load: Load) -> list[TokenTree]:
        """Before verifying: the part of each tree that is worth scoring."""
        ...

    def observe(self, record: DraftRecord, tree: TokenTree, path: Sequence[int], seconds: float) -> None:
        """After verifying: the verified tree, the accepted nodes, and how long the step took."""
        ...
