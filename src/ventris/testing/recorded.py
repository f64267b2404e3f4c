"""Real texts and drafts on a clock without noise: recorded once from a model, then served again and again.

Greedy decoding gives the same text whatever is drafted, so a text and what a drafter proposes after each of
its beginnings say all that an engine meets: which drafts are kept under any policy, load and batch. With
:mod:`ventris.testing.simulated` for what passes take, policies are compared on the acceptance of real
prompts, and every time alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ventris.draft.best_nodes import best_nodes
from ventris.engine.parts import Budget, Commit, Drafter, DraftJob, DraftRecord, Load, RequestView
from ventris.engine.tree import TokenTree
from ventris.engine.walk import Walk
from ventris.model import Model
from ventris.policy import Fixed
from ventris.policy.running_fit import RunningFit
from ventris.testing.simulated import VirtualTime

PRICED_LENGTHS = (1, 3, 8)
PRICED_TOKENS = 24
"""Draft lengths, and tokens of each request, from which the price of a drafter is learnt."""


@dataclass(slots=True)
class Recording:
    """One prompt, the answer to it, and what was drafted on the way.

    Attributes:
        prompt, output: Token ids.
        trees: By drafter, the tree that it proposed when so many tokens of the output were there; not for
            every number, since before the last token nobody is asked.
    """

    prompt: list[int]
    output: list[int]
    trees: dict[str, dict[int, TokenTree]] = field(default_factory=dict)


class Listening:
    """Writes down what a drafter proposes, and has nothing of it scored, so that every token gets its turn.

    Args:
        drafter: Asked at every step, to its own limits.
        heard: Filled with the trees, by prompt and by output tokens before them.
    """

    shape = "chain"
    draws = False

    def __init__(self, drafter: Drafter, heard: dict[tuple[int, ...], dict[int, TokenTree]]) -> None:
        self.name = drafter.name
        self.taps = drafter.taps
        self.drafter = drafter
        self.heard = heard

    def start(self, request: RequestView) -> Any:
        return self.drafter.start(request)

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        for job, tree in zip(jobs, self.drafter.propose(jobs), strict=True):
            self.heard.setdefault(tuple(job.request.prompt), {})[job.request.generated] = tree
        return [TokenTree.root(job.root) for job in jobs]

    def observe(self, state: Any, commit: Commit) -> None:
        self.drafter.observe(state, commit)

    def finish(self, state: Any) -> None:
        if hasattr(self.drafter, "finish"):
            self.drafter.finish(state)


class RecordedDrafter:
    """Proposes what a drafter proposed at the same place of the same text, as far as the budget goes.

    Args:
        recordings: Of the prompts that will come.
    """

    draws = False
    taps: Sequence[int] = ()

    def __init__(self, name: str, shape: str, recordings: Sequence[Recording]) -> None:
        self.name = name
        self.shape = shape
        self._trees = {tuple(each.prompt): each.trees[name] for each in recordings}

    def start(self, request: RequestView) -> dict[int, TokenTree]:
        return self._trees[tuple(request.prompt)]

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        return [_within(job.state.get(job.request.generated), job) for job in jobs]

    def observe(self, state: dict[int, TokenTree], commit: Commit) -> None:
        """It was written down before."""


def _within(tree: TokenTree | None, job: DraftJob) -> TokenTree:
    """The part of a recorded tree that a budget allows."""
    if tree is None:
        return TokenTree.root(job.root)
    depths = tree.depths()
    short = tree.keep([node for node in range(len(tree)) if depths[node] <= job.budget.depth])
    return best_nodes(short, job.budget.nodes)


class Recorded:
    """The greedy rule, with a recorded text in place of the target's choice.

    Args:
        recording: Of the request's prompt.
    """

    name = "recorded"
    exact = True
    greedy_only = True
    chain_only = False

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    def select(self, walk: Walk) -> None:
        while walk.open:
            walk.take(self.recording.output[walk.request.generated])


@dataclass(frozen=True, slots=True)
class DraftPrice:
    """Seconds of a drafter's call: for itself, for each level of its deepest tree, for each drafted token."""

    call: float
    level: float
    node: float

    def __call__(self, depth: int, nodes: int) -> float:
        return self.call + self.level * depth + self.node * nodes


class Priced:
    """A drafter whose calls take what they are said to take, whatever they take on this machine.

    Args:
        time: Moved on by every call.
    """

    def __init__(self, drafter: Drafter, time: VirtualTime, price: DraftPrice) -> None:
        self.name = drafter.name
        self.shape = drafter.shape
        self.draws = drafter.draws
        self.taps: Sequence[int] = ()
        self.drafter = drafter
        self.time = time
        self.price = price

    def start(self, request: RequestView) -> Any:
        return self.drafter.start(request)

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        trees = self.drafter.propose(jobs)
        self.time.now += self.price(max(max(t.depths()) for t in trees), sum(len(t) - 1 for t in trees))
        return trees

    def observe(self, state: Any, commit: Commit) -> None:
        self.drafter.observe(state, commit)


class _Watching(Fixed):
    """Drafts a set length and keeps what the calls took.

    Attributes:
        found: Seconds of calls, by depth and drafted tokens.
    """

    def __init__(self, name: str, length: int, found: dict[tuple[int, int], list[float]]) -> None:
        super().__init__(depth=length)
        self._name = name
        self._found = found
        self._seen: object = None

    def plan(self, records: Sequence[DraftRecord], load: Load) -> list[Budget]:
        if load.last is not None and load.last is not self._seen:
            self._seen = load.last
            call = load.last.drafts.get(self._name)
            if call is not None:
                self._found.setdefault((call.depth, call.nodes), []).append(call.seconds)
        return super().plan(records, load)


def measured_price(
    model: Model, prompts: Sequence[Sequence[int]], drafter: Drafter, max_batch: int = 8
) -> DraftPrice:
    """What a drafter's calls take on this machine, alone and in a batch: least squares over medians."""
    found: dict[tuple[int, int], list[float]] = {}
    for length in PRICED_LENGTHS:
        for batch in {1, max_batch}:
            engine = model.engine(batch)
            watching = _Watching(drafter.name, length, found)
            for number in range(batch):
                prompt = list(prompts[number % len(prompts)])
                engine.add(
                    model.request(
                        prompt,
                        max_new_tokens=PRICED_TOKENS,
                        ignore_eos=True,
                        draft=drafter,
                        policy=watching,
                        verifier="greedy",
                    )
                )
            list(engine.run())
            engine.close()
    # In milliseconds, so that the pull towards nothing is small beside them.
    fit = RunningFit((0.0,) * 3, (0.01,) * 3, forgetting=1.0)
    for (depth, nodes), seconds in found.items():
        fit.observe((1.0, depth, nodes), 1000 * median(seconds))
    call, level, node = fit.coefficients()
    return DraftPrice(call / 1000, level / 1000, node / 1000)


def record(
    model: Model,
    prompts: Sequence[Sequence[int]],
    drafters: Sequence[Drafter],
    max_new_tokens: int,
    max_batch: int = 8,
) -> list[Recording]:
    """Answer each prompt greedily to its full length, with each drafter listened to in turn.

    Raises:
        As ``Model.generate`` does; half an answer would not be told from a whole one later.
    """
    recordings = [Recording(list(prompt), []) for prompt in prompts]
    asked: Sequence[Drafter | None] = drafters or (None,)
    for drafter in asked:
        heard: dict[tuple[int, ...], dict[int, TokenTree]] = {}
        engine = model.engine(max_batch)
        listening = Listening(drafter, heard) if drafter is not None else None
        completions = [
            engine.add(
                model.request(
                    each.prompt,
                    max_new_tokens=max_new_tokens,
                    ignore_eos=True,
                    draft=listening,
                    policy=Fixed(),
                    verifier="greedy",
                )
            )
            for each in recordings
        ]
        list(engine.run())
        engine.close()
        for each, completion in zip(recordings, completions, strict=True):
            if completion.exception is not None:
                raise completion.exception
            each.output = completion.tokens
            if drafter is not None:
                each.trees[drafter.name] = heard.get(tuple(each.prompt), {})
    return recordings
