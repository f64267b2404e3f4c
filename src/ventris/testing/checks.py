"""Checks that run a part's whole contract, for anybody's drafter, guide or verifier.

Each check raises :class:`ContractBroken` with one sentence that names what is wrong; it returns nothing when
all is well. They run on :class:`~ventris.testing.toy.ToyTarget`, so they take a second and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

from ventris.draft.model import DraftModel
from ventris.draft.ngram import NGram
from ventris.engine.batch import Engine
from ventris.engine.errors import VentrisError
from ventris.engine.ledger import MemoryLedger
from ventris.engine.parts import (
    NO_DRAFT,
    Budget,
    Drafter,
    DraftRecord,
    Guide,
    Load,
    Policy,
    RequestView,
)
from ventris.engine.request import Completion, Request
from ventris.engine.sampling import Sampling
from ventris.engine.target import Target
from ventris.engine.verifier import Verifier
from ventris.policy.fixed import Fixed
from ventris.testing.laws import largest_error, text_law
from ventris.testing.toy import ToyTarget
from ventris.verify.match import Coupled, Greedy
from ventris.verify.rejection import Rejection

PROMPT = [1, 2, 3, 1, 2]


class ContractBroken(AssertionError):
    """A part does not keep its contract."""


def run(
    target: Target,
    verifier: Verifier,
    drafter: Drafter | None = None,
    guides: Sequence[Guide] = (),
    prompts: Sequence[Sequence[int]] = (PROMPT,),
    tokens: int = 24,
    end_ids: Sequence[int] = (),
    policy: Policy | None = None,
    **sampling: Any,
) -> list[Completion]:
    """Decode prompts side by side, with fixed drafting unless told otherwise, and return the completions.

    Raises:
        VentrisError: with the message of the first request that failed.
    """
    engine = Engine(target, max_batch=8, chunk=16)
    policy = policy or Fixed()
    completions = [
        engine.add(
            Request(
                list(prompt),
                verifier,
                policy,
                max_new_tokens=tokens,
                drafter=drafter,
                guides=guides,
                sampling=Sampling(**sampling),
                end_ids=frozenset(end_ids),
            )
        )
        for prompt in prompts
    ]
    for _ in engine.run():
        pass
    failed = next((c.error for c in completions if c.error is not None), None)
    if failed is not None:
        raise VentrisError(failed)
    if engine.ledger.total:
        raise ContractBroken(f"cache memory was not given back: {engine.ledger.held}")
    return completions


def check_drafter(drafter: Drafter, target: Target | None = None) -> None:
    """Check a drafter: attributes, trees, exactness alone, in a batch, and under budgets that change.

    Of a drafter that draws it is checked that it says so; :func:`~ventris.testing.laws.text_law` shows
    whether it draws from what it says.

    Args:
        drafter: The part.
        target: What it drafts for; a toy of 12 tokens by default.

    Raises:
        ContractBroken: naming the clause.
    """
    target = target or ToyTarget(vocab_size=12, memory=2, sharpness=5.0)
    _require_attributes(drafter, Drafter, ("name", "shape", "draws", "taps"), ("start", "propose", "observe"))
    if drafter.shape not in ("chain", "tree"):
        raise ContractBroken(f"shape is {drafter.shape!r}; it must be 'chain' or 'tree'")
    watched = _Watched(drafter, target.vocab_size)
    for prompts in ([PROMPT], [PROMPT, [4, 5], [7] * 20]):
        for ends in ((), (0, 5)):
            plain = [c.tokens for c in run(target, Greedy(), None, prompts=prompts, end_ids=ends)]
            drafted = [c.tokens for c in run(target, Greedy(), watched, prompts=prompts, end_ids=ends)]
            if plain != drafted:
                raise ContractBroken("greedy output with the drafter differs from output without it")
    if run(target, Greedy(), watched, policy=_Changing())[0].tokens != run(target, Greedy())[0].tokens:
        raise ContractBroken("greedy output differs where the budget changes from step to step")
    seeded: dict[str, Any] = {"temperature": 1.0, "seed": 11}
    if (
        run(target, Coupled(), None, **seeded)[0].tokens
        != run(target, Coupled(), watched, **seeded)[0].tokens
    ):
        raise ContractBroken("coupled output with the drafter differs from output without it")
    if drafter.draws:
        watched.draws_seen = False
        run(target, Rejection(), watched, **seeded)
        if not watched.draws_seen:
            raise ContractBroken("draws is true, but no tree recorded draft_probs at temperature 1")


class _Changing(Fixed):
    """Little, nothing, one token, much, and so on: whoever is not asked in a step must not lose his place."""

    def __init__(self) -> None:
        super().__init__()
        self._budgets = cycle((Budget(3, 2), NO_DRAFT, Budget(1, 1), self.budget, NO_DRAFT, Budget(2, 8)))

    def plan(self, records: Sequence[DraftRecord], load: Load) -> list[Budget]:
        return [next(self._budgets) for _ in records]


class _Watched:
    """Passes everything on to a drafter and checks what it proposes."""

    def __init__(self, drafter: Drafter, vocab_size: int) -> None:
        self.drafter = drafter
        self.name, self.shape = drafter.name, drafter.shape
        self.draws, self.taps = drafter.draws, drafter.taps
        self.vocab_size = vocab_size
        self.draws_seen = False

    def start(self, request: RequestView) -> Any:
        return self.drafter.start(request)

    def propose(self, jobs: Any) -> Any:
        trees = self.drafter.propose(jobs)
        if len(trees) != len(jobs):
            raise ContractBroken(f"propose returned {len(trees)} trees for {len(jobs)} jobs")
        for job, tree in zip(jobs, trees, strict=True):
            try:
                tree.validate(self.vocab_size)
            except ValueError as error:
                raise ContractBroken(f"propose returned a malformed tree: {error}") from error
            if not all(0.0 <= confidence <= 1.0 for confidence in tree.confidence):
                raise ContractBroken("a tree's confidence lies outside [0, 1]")
            if tree.tokens[0] != job.root:
                raise ContractBroken("node 0 of a proposed tree must be the job's root token")
            depth = max(tree.depths())
            if len(tree) - 1 > job.budget.nodes or depth > job.budget.depth:
                raise ContractBroken(
                    f"a tree of {len(tree) - 1} nodes and depth {depth} passes its budget {job.budget}"
                )
            if self.shape == "chain" and any(len(below) > 1 for below in tree.children()):
                raise ContractBroken("shape is 'chain', but a proposed tree branches")
            if tree.draws and not self.draws:
                raise ContractBroken("draws is false, but a proposed tree records draws")
            self.draws_seen |= bool(tree.draws)
        return trees

    def observe(self, state: Any, commit: Any) -> None:
        self.drafter.observe(state, commit)

    def finish(self, state: Any) -> None:
        finish = getattr(self.drafter, "finish", None)
        if finish is not None:
            finish(state)


def check_guide(make_guide: Callable[[], Guide], target: Target | None = None) -> None:
    """Check a guide: its answer may depend on the prefix alone, whatever is drafted or batched.

    Args:
        make_guide: Makes a fresh guide.
        target: A toy of 12 tokens by default.

    Raises:
        ContractBroken: naming the clause.
    """
    target = target or ToyTarget(vocab_size=12, memory=2, sharpness=5.0)
    guide = make_guide()
    _require_attributes(guide, Guide, ("name", "masks"), ("start",))
    draft = DraftModel(ToyTarget(12, memory=2, sharpness=5.0, blend=(9, 0.4)), width=3, samples=0)
    for drafter in (NGram(), draft):
        choices: list[dict[str, Any]] = [{}, {"temperature": 1.0, "seed": 5}]
        for settings in choices:
            verifier = Coupled() if settings else Greedy()
            plain = run(target, verifier, None, [make_guide()], **settings)[0].tokens
            for prompts in ([PROMPT], [[4, 5], PROMPT]):
                drafted = run(target, verifier, drafter, [make_guide()], prompts, **settings)
                if drafted[prompts.index(PROMPT)].tokens != plain:
                    raise ContractBroken(
                        f"the text under guide {guide.name!r} changes with drafter {drafter.name!r} or with "
                        "the batch; its answer must depend on the tokens up to the node alone"
                    )
    if getattr(guide, "forkable", False):
        _check_fork(make_guide(), target)


def _check_fork(guide: Guide, target: Target) -> None:
    request = _view(target)
    state = guide.start(request)
    if not hasattr(state, "fork"):
        raise ContractBroken("forkable is true, but the state has no fork()")
    twin = state.fork()
    for token in (3, 4, 3):
        twin.advance(token)
    fresh = guide.start(_view(target))
    if vars(state).keys() != vars(fresh).keys() or repr(_plain(state)) != repr(_plain(fresh)):
        raise ContractBroken("advancing a fork changed the state it was forked from")


def _plain(state: Any) -> dict[str, Any]:
    return {
        name: value for name, value in vars(state).items() if isinstance(value, int | str | dict | list | set)
    }


def _view(target: Target) -> RequestView:
    return RequestView(target, PROMPT, list(PROMPT), Sampling(), 8, frozenset(), MemoryLedger())


def check_verifier(make_verifier: Callable[[], Verifier], tolerance: float = 1e-9) -> None:
    """Check a verifier; an exact one must give the target's law for three tokens, by enumeration.

    Args:
        make_verifier: Makes a fresh verifier.
        tolerance: Largest difference of a probability.

    Raises:
        ContractBroken: naming the clause.
    """
    verifier = make_verifier()
    _require_attributes(verifier, Verifier, ("name", "exact", "greedy_only", "chain_only"), ("select",))
    target = ToyTarget(vocab_size=12, memory=2, sharpness=5.0)
    if verifier.exact:
        plain = run(target, Greedy())[0].tokens
        draft = DraftModel(ToyTarget(12, memory=2, sharpness=5.0, blend=(9, 0.4)), samples=0)
        if run(target, verifier, draft)[0].tokens != plain:
            raise ContractBroken("at temperature 0 the output differs from greedy decoding")
    if verifier.exact and not verifier.greedy_only:
        for samples, depth in ((0, 2), (1, 2)) if verifier.chain_only else ((0, 2), (1, 2), (2, 1)):
            error = law_error(make_verifier, samples, depth)
            if error > tolerance:
                raise ContractBroken(
                    f"the law of three tokens is off by {error:.2e} with {samples} drawn continuations"
                )


def law_error(make_verifier: Callable[[], Verifier], samples: int, depth: int = 2, tokens: int = 3) -> float:
    """Largest error of the joint law of the first tokens, every outcome of every draw enumerated.

    Args:
        samples: Continuations drawn by the draft model; 0 for point-mass drafts.
        depth: Tokens drafted ahead.
        tokens: Length of the texts whose probabilities are compared.
    """
    target = ToyTarget(vocab_size=3, seed=1, sharpness=1.0)
    draft = ToyTarget(vocab_size=3, seed=1, sharpness=1.0, blend=(2, 0.5))
    width = 2 if samples == 0 and not make_verifier().chain_only else 1

    def make_drafter() -> Drafter:
        return DraftModel(draft, depth=depth, width=width, nodes=4, samples=samples)

    law = text_law(target, make_verifier, make_drafter, tokens)
    return largest_error(law, target)


def _require_attributes(part: object, contract: type, values: Sequence[str], methods: Sequence[str]) -> None:
    for name in values:
        if not hasattr(part, name):
            raise ContractBroken(f"a {contract.__name__.lower()} needs the attribute {name!r}")
    for name in methods:
        if not callable(getattr(part, name, None)):
            raise ContractBroken(f"a {contract.__name__.lower()} needs the method {name}()")
