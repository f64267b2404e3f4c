"""The loop on toy targets: drafts, batches, chunks, shared prefixes and caches change no output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ventris.cost import CostCurve
from ventris.draft import DraftModel, NGram, Stack
from ventris.engine.batch import Engine
from ventris.engine.errors import BadInput, OverBudget
from ventris.engine.ledger import MemoryLedger
from ventris.engine.parts import Budget, Drafter, RequestView
from ventris.engine.randomness import uniform
from ventris.engine.request import Request
from ventris.engine.sampling import Sampling
from ventris.engine.stream import Stream
from ventris.engine.target import Rows, Scores
from ventris.engine.tree import TokenTree
from ventris.policy import Fixed, Goodput
from ventris.testing.checks import run
from ventris.testing.guides import Amateur, Forbid, HiddenShift, NoRepeatedPairs
from ventris.testing.simulated import VirtualTime
from ventris.testing.toy import ToyTarget
from ventris.verify import Coupled, Greedy

TARGET = ToyTarget(vocab_size=12, memory=2, sharpness=5.0)
DRAFT = ToyTarget(vocab_size=12, memory=2, sharpness=5.0, blend=(9, 0.4))


class TimedTarget(ToyTarget):
    """Passes take what a curve says, on a clock that stands still otherwise."""

    def __init__(self, curve: CostCurve) -> None:
        super().__init__(vocab_size=12, memory=2, sharpness=5.0)
        self.curve = curve
        self.clock = VirtualTime()

    def forward(self, batch: Sequence[Rows], taps: Sequence[int] = ()) -> Scores:
        self.clock.now += self.curve(sum(len(rows.tokens) for rows in batch))
        return super().forward(batch, taps)


class Adversary:
    """Drafts anything: duplicates, end tokens in the middle, wide and deep trees, always another one."""

    name = "adversary"
    shape = "tree"
    draws = False
    taps = (0,)

    def __init__(self, seed: int, vocab_size: int = 12) -> None:
        self.seed = seed
        self.vocab_size = vocab_size
        self.calls = 0

    def start(self, request: object) -> list[int]:
        return []

    def propose(self, jobs: list) -> list[TokenTree]:
        trees = []
        for job in jobs:
            self.calls += 1
            tree = TokenTree([job.root], [-1], source=self.name)
            depth = [0]
            for index in range(min(job.budget.nodes, 10)):
                parent = int(uniform(self.seed, self.calls, index) * len(tree))
                if depth[parent] < job.budget.depth:
                    token = int(uniform(self.seed, self.calls, index, 1) * self.vocab_size)
                    tree.add(token, parent)
                    depth.append(depth[parent] + 1)
            trees.append(tree)
        return trees

    def observe(self, state: list[int], commit: object) -> None:
        # The rows told must be the text in order, without gaps or repeats.
        state += commit.tokens
        assert [int(row) for row in commit.hidden[0][:, 0]] == list(commit.tokens)


def drafters() -> list[Drafter]:
    return [
        NGram(),
        NGram(width=1),
        DraftModel(DRAFT),
        DraftModel(DRAFT, width=3, samples=0),
        DraftModel(DRAFT, samples=3),
        Stack([NGram(min_match=3), DraftModel(DRAFT)]),
        Adversary(4),
    ]


prompts = st.lists(st.lists(st.integers(1, 11), min_size=1, max_size=40), min_size=1, max_size=5)


@settings(max_examples=25)
@given(prompts, st.integers(0, 6), st.integers(0, 1000), st.integers(1, 40))
def test_greedy_output_never_depends_on_drafts_or_batch(
    batch: list[list[int]], which: int, seed: int, tokens: int
) -> None:
    target = ToyTarget(vocab_size=12, memory=3, sharpness=5.0, seed=seed)
    drafter = Adversary(seed) if which == 6 else drafters()[which]
    plain = [run(target, Greedy(), prompts=[prompt], tokens=tokens)[0].tokens for prompt in batch]
    drafted = run(target, Greedy(), drafter, prompts=batch, tokens=tokens)
    assert [completion.tokens for completion in drafted] == plain


@settings(max_examples=25)
@given(prompts, st.integers(0, 6), st.integers(0, 1000))
def test_coupled_output_never_depends_on_drafts_or_batch(
    batch: list[list[int]], which: int, seed: int
) -> None:
    settings_ = {
        "temperature": 1.0,
        "seed": seed,
        "top_p": 0.95,
        "presence_penalty": 0.4,
        "repetition_penalty": 1.1,
        "logit_bias": {3: 0.7},
    }
    guides = [NoRepeatedPairs()]
    plain = [run(TARGET, Coupled(), None, guides, [prompt], **settings_)[0].tokens for prompt in batch]
    drafted = run(TARGET, Coupled(), drafters()[which], guides, batch, **settings_)
    assert [completion.tokens for completion in drafted] == plain


@pytest.mark.parametrize("guide", [lambda: Amateur(DRAFT), lambda: HiddenShift(0), NoRepeatedPairs])
@pytest.mark.parametrize("drafter", drafters(), ids=lambda d: f"{d.name}-{d.shape}")
def test_guides_hold_under_every_drafter(guide, drafter) -> None:
    plain = run(TARGET, Greedy(), None, [guide()], tokens=40)[0]
    drafted = run(TARGET, Greedy(), drafter, [guide()], tokens=40)[0]
    assert drafted.tokens == plain.tokens
    assert drafted.tokens != run(TARGET, Greedy(), tokens=40)[0].tokens


def test_guides_are_asked_only_at_visited_nodes() -> None:
    class Counting(NoRepeatedPairs):
        asked = 0

        def start(self, request):
            state = super().start(request)
            original = state.adjust

            def adjust(logits, view):
                Counting.asked += 1
                return original(logits, view)

            state.adjust = adjust
            return state

    completion = run(TARGET, Greedy(), Adversary(1), [Counting()], tokens=40)[0]
    assert completion.stats.drafted > 100
    assert Counting.asked == len(completion.tokens)


def test_different_settings_share_a_batch() -> None:
    engine = Engine(TARGET, max_batch=8, chunk=8)
    policy = Fixed()

    def request(index: int) -> Request:
        drafter = [None, *drafters()][index % 8]
        greedy = index % 2 == 0
        return Request(
            [1 + index % 5, 2, 3] * (index + 1),
            Greedy() if greedy else Coupled(),
            policy,
            max_new_tokens=10 + 3 * index,
            drafter=drafter,
            guides=[NoRepeatedPairs()] if index % 3 == 0 else [],
            sampling=Sampling(temperature=0.0 if greedy else 0.8, seed=index),
        )

    together = [engine.add(request(index)) for index in range(12)]
    list(engine.run())
    for index, completion in enumerate(together):
        alone = Engine(TARGET)
        expected = alone.add(request(index))
        list(alone.run())
        assert completion.tokens == expected.tokens, index
        assert completion.finish_reason == "length"
    assert engine.ledger.total == 0


def test_requests_join_and_leave_between_steps() -> None:
    engine = Engine(TARGET, max_batch=3, chunk=4)
    first = engine.add(Request([1, 2, 3], Greedy(), Fixed(), max_new_tokens=30))
    for _ in range(4):
        engine.step()
    second = engine.add(Request([4] * 20, Greedy(), Fixed(), max_new_tokens=5))
    third = engine.add(Request([5, 6], Greedy(), Fixed(), max_new_tokens=30))
    engine.step()
    engine.cancel(third)
    assert third.finish_reason == "cancelled"
    list(engine.run())
    assert second.tokens == run(TARGET, Greedy(), prompts=[[4] * 20], tokens=5)[0].tokens
    assert len(first.tokens) == 30
    assert engine.ledger.total == 0


def test_long_prompts_are_read_in_chunks_beside_running_requests() -> None:
    engine = Engine(TARGET, max_batch=4, chunk=8)
    running = engine.add(Request([1, 2], Greedy(), Fixed(), max_new_tokens=60))
    engine.step()
    long = engine.add(Request([3, 4, 5] * 30, Greedy(), Fixed(), max_new_tokens=4))
    produced_while_reading = 0
    while not long.tokens:
        produced_while_reading += sum(
            len(event.tokens) for event in engine.step() if event.completion is running
        )
    assert produced_while_reading >= 90 // 8
    list(engine.run())
    assert long.tokens == run(TARGET, Greedy(), prompts=[[3, 4, 5] * 30], tokens=4)[0].tokens


def test_a_shared_prefix_is_computed_once() -> None:
    class Counting(ToyTarget):
        rows = 0

        def run_layers(self, batch, hidden, first, last, taps=()):
            self.rows += len(hidden)
            return super().run_layers(batch, hidden, first, last, taps)

    target = Counting(vocab_size=12, memory=2)
    prefix = [1, 2, 3, 4] * 50
    engine = Engine(target, max_batch=8, chunk=64, prefix_bytes=1 << 20)
    completions = [
        engine.add(Request([*prefix, n], Greedy(), Fixed(), max_new_tokens=3)) for n in range(1, 6)
    ]
    list(engine.run())
    assert target.rows < 200 + 64 + 5 * 8
    assert sum(c.stats.reused_tokens for c in completions) >= 4 * (200 - 32)
    later = engine.add(Request([*prefix, 9, 9], Greedy(), Fixed(), max_new_tokens=3))
    list(engine.run())
    assert later.stats.reused_tokens == 200
    expected = run(TARGET_LIKE(target), Greedy(), prompts=[[*prefix, 9, 9]], tokens=3)[0].tokens
    assert later.tokens == expected
    engine.close()
    assert engine.ledger.total == 0


def TARGET_LIKE(target: ToyTarget) -> ToyTarget:
    return ToyTarget(vocab_size=target.vocab_size, memory=target.memory)


def test_the_prefix_store_stays_within_its_limit() -> None:
    ledger = MemoryLedger()
    engine = Engine(TARGET, ledger=ledger, prefix_bytes=6000)
    for start in range(1, 11):
        engine.add(Request([start] * 30, Greedy(), Fixed(), max_new_tokens=5))
        list(engine.run())
        assert engine.prefixes.nbytes <= 6000
    assert ledger.total == engine.prefixes.nbytes


def test_memory_limits_queue_and_refuse_requests() -> None:
    row = 2 * 8
    engine = Engine(TARGET, max_batch=4, ledger=MemoryLedger(limit=row * 250))
    small = [engine.add(Request([1, 2, n], Greedy(), Fixed(), max_new_tokens=20)) for n in range(1, 7)]
    with pytest.raises(OverBudget, match=r"320 tokens need .* budget is 4,000"):
        engine.add(Request([1] * 300, Greedy(), Fixed(), max_new_tokens=20))
    list(engine.run())
    assert all(completion.finish_reason == "length" for completion in small)
    assert engine.ledger.peak <= row * 250
    assert engine.ledger.total == 0


def test_end_tokens_and_limits_cut_accepted_paths() -> None:
    for tokens in range(1, 20):
        for drafter in (None, NGram(), DraftModel(DRAFT)):
            completion = run(TARGET, Greedy(), drafter, tokens=tokens, end_ids=[0, 7])[0]
            assert len(completion.tokens) <= tokens
            if completion.finish_reason == "stop":
                assert completion.tokens[-1] in (0, 7)
                assert not {0, 7} & set(completion.tokens[:-1])


def test_a_dead_end_names_the_guide_and_spares_the_others() -> None:
    engine = Engine(TARGET)
    doomed = engine.add(Request([1], Greedy(), Fixed(), guides=[Forbid(range(12))]))
    fine = engine.add(Request([1], Greedy(), Fixed(), max_new_tokens=5))
    list(engine.run())
    assert doomed.finish_reason == "error"
    assert "'forbid'" in (doomed.error or "")
    assert len(fine.tokens) == 5
    assert engine.ledger.total == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": []}, "empty"),
        ({"prompt": [99]}, "outside the vocabulary"),
        ({"prompt": [1] * 5000}, "context"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"stop": ["x"]}, "detokenizer"),
        ({"logprobs": -1}, "logprobs"),
    ],
)
def test_bad_requests_are_refused_in_one_line(change: dict, message: str) -> None:
    request = Request(**{"prompt": [1], "verifier": Greedy(), "policy": Fixed(), **change})
    with pytest.raises(BadInput, match=message) as caught:
        Engine(TARGET).add(request)
    assert "\n" not in str(caught.value)


def test_goodput_stops_drafting_that_does_not_pay_and_recovers() -> None:
    class Liar:
        """Confidently wrong until told otherwise."""

        name, shape, draws, taps = "liar", "chain", False, ()
        right = False

        def start(self, request):
            return request

        def propose(self, jobs):
            trees = []
            for job in jobs:
                tree = TokenTree([job.root], [-1], [1.0], self.name)
                text, parent = list(job.state.tokens), 0
                for _ in range(min(job.budget.nodes, job.budget.depth, 4)):
                    best = int(TARGET.logits(text).argmax())
                    token = best if self.right else (best + 1) % 12
                    text.append(token)
                    parent = tree.add(token, parent, 0.9)
                trees.append(tree)
            return trees

        def observe(self, state, commit):
            pass

    curve = CostCurve((1, 2, 64), (1.0, 1.3, 20.0))
    liar, target = Liar(), TimedTarget(curve)
    engine = Engine(target, clock=target.clock)
    completion = engine.add(
        Request([1, 2], Greedy(), Goodput(curve), max_new_tokens=600, drafter=liar, end_ids=frozenset())
    )
    while len(completion.tokens) < 200:
        engine.step()
    wasted = completion.stats.drafted
    assert wasted < 40
    liar.right = True
    list(engine.run())
    assert completion.stats.accepted > 200


def test_goodput_drafts_less_in_a_busy_batch() -> None:
    flat_then_steep = CostCurve((1, 8, 9, 64), (1.0, 1.0, 2.0, 30.0))
    sizes = {}
    for batch in (1, 8):
        target = TimedTarget(flat_then_steep)
        engine = Engine(target, max_batch=8, clock=target.clock)
        completions = [
            engine.add(
                Request(
                    [1, 2],
                    Greedy(),
                    Goodput(flat_then_steep),
                    max_new_tokens=60,
                    drafter=NGram(),
                    share_prefix=False,
                )
            )
            for _ in range(batch)
        ]
        list(engine.run())
        stats = completions[0].stats
        sizes[batch] = stats.drafted / stats.steps
    assert sizes[8] < sizes[1]


def test_budgets_compose_by_the_minimum() -> None:
    assert Budget(4, 9).minimum(Budget(7, 2)) == Budget(4, 2)


def test_a_dear_drafter_is_not_called_where_it_cannot_pay() -> None:
    """A draft model as slow as its target gains nothing, and the policy finds out."""

    class Slow(DraftModel):
        calls = 0

        def propose(self, jobs):
            Slow.calls += 1
            return super().propose(jobs)

    engine = Engine(TARGET)
    curve = CostCurve((1, 64), (1e-6, 1e-4))
    engine.add(Request([1, 2], Greedy(), Goodput(curve), max_new_tokens=300, drafter=Slow(DRAFT)))
    list(engine.run())
    assert Slow.calls < 60


class Cycle:
    """Only ever allows the token after the last one, modulo 12; tells so ahead of time."""

    name = "cycle"
    masks = True
    forkable = False

    def __init__(self, ahead: int = 0, prunes: bool = False) -> None:
        self.ahead = ahead
        self.prunes = prunes

    def start(self, request):
        return CycleState(self, request.prompt[-1])


class CycleState:
    def __init__(self, guide: Cycle, last: int) -> None:
        self.last = last
        if guide.ahead:
            self.forced = lambda: [(self.last + 1 + step) % 12 for step in range(guide.ahead)]
        if guide.prunes:
            self.prune = self._prune

    def _prune(self, tree):
        depth = tree.depths()
        return [n for n in range(len(tree)) if n == 0 or tree.tokens[n] == (self.last + depth[n]) % 12]

    def adjust(self, logits, view):
        allowed = (self.last + 1) % 12
        value = float(logits[allowed])
        logits[:] = -float("inf")
        logits[allowed] = value
        return logits

    def advance(self, token):
        self.last = token


def test_forced_tokens_are_free_drafts() -> None:
    plain = run(TARGET, Greedy(), None, [Cycle()], tokens=30)[0]
    forced = run(TARGET, Greedy(), None, [Cycle(ahead=4)], tokens=30)[0]
    assert forced.tokens == plain.tokens
    assert plain.stats.steps == 30
    # Four tokens are taken as they are, and behind them four more are drafted; the target adds one.
    assert forced.stats.steps == 4
    assert forced.stats.dictated + forced.stats.accepted + forced.stats.steps == 30
    assert forced.stats.acceptance == [1.0] * 4


@pytest.mark.parametrize("samples", [0, 2])
def test_pruned_drafts_change_nothing_but_the_work(samples: int) -> None:
    settings_ = {"temperature": 1.0, "seed": 4} if samples else {}
    verifier = Coupled() if samples else Greedy()
    draft = DraftModel(DRAFT, width=3, samples=samples)
    plain = run(TARGET, verifier, draft, [Cycle()], tokens=30, **settings_)[0]
    pruned = run(TARGET, verifier, draft, [Cycle(prunes=True)], tokens=30, **settings_)[0]
    assert pruned.tokens == plain.tokens
    assert pruned.stats.drafted < plain.stats.drafted


def test_memory_that_runs_out_in_the_middle_of_a_step_costs_one_request_at_most() -> None:
    """A guide that reserves too little grows; the youngest request gives way, the others stay exact."""

    class Growing(Amateur):
        """Opens its stream for a short text, whatever the request says."""

        def start(self, request: RequestView) -> Any:
            state = super().start(request)
            state.streams = [Stream(self.model, request.prompt, ledger=request.ledger, capacity=16)]
            return state

    row = 2 * 8
    refused = 0
    for rows in range(260, 420, 20):
        engine = Engine(TARGET, max_batch=4, ledger=MemoryLedger(limit=row * rows))
        completions = [
            engine.add(
                Request(
                    [1, 2, n],
                    Greedy(),
                    Fixed(),
                    max_new_tokens=40,
                    drafter=DraftModel(DRAFT, width=3, samples=0),
                    guides=[Growing(DRAFT)],
                    share_prefix=False,
                )
            )
            for n in range(1, 4)
        ]
        list(engine.run())
        for n, completion in enumerate(completions, start=1):
            if completion.finish_reason == "error":
                refused += 1
                assert "budget" in (completion.error or "")
            else:
                expected = run(TARGET, Greedy(), None, [Amateur(DRAFT)], [[1, 2, n]], tokens=40)[0]
                assert completion.tokens == expected.tokens
        assert engine.ledger.peak <= row * rows
        assert engine.ledger.total == 0
    assert refused > 0
