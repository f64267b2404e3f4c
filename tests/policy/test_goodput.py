"""Goodput with drafters that take time: how far they draft, alone and in a batch, and what teaches it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from ventris.cost import CostCurve
from ventris.engine.batch import Engine
from ventris.engine.parts import DraftJob, Load, RequestView, StepCost
from ventris.engine.request import Completion, Request
from ventris.engine.sampling import Sampling
from ventris.engine.tree import TokenTree
from ventris.policy import AcceptanceThreshold, Fixed, Goodput
from ventris.policy.by_depth import ByDepth
from ventris.testing.simulated import SimulatedDrafter, SimulatedTarget, VirtualTime
from ventris.verify import Synthetic

FLAT = CostCurve((1, 8, 64), (0.0090, 0.0100, 0.0180))
"""Like 16-bit weights on a CPU: eight rows cost little more than one."""


class Reading(SimulatedDrafter):
    """Has to read each request's prompt in its first call, as a drafter with a cache of its own does."""

    def __init__(self, time: VirtualTime, level_seconds: float, token_seconds: float) -> None:
        super().__init__(time, level_seconds)
        self.token_seconds = token_seconds

    def start(self, request: RequestView) -> list[int]:
        return list(request.prompt)

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        for job in jobs:
            self.time.now += self.token_seconds * len(job.state)
            job.state.clear()
        return super().propose(jobs)


class Simulation:
    """An engine on a virtual clock whose passes take what ``FLAT`` says."""

    def __init__(
        self,
        policy: object,
        level_seconds: float,
        token_seconds: float = 0.0,
        drafter: type[Reading] = Reading,
    ) -> None:
        self.time = VirtualTime()
        self.policy = policy
        self.drafter = drafter(self.time, level_seconds, token_seconds)
        target = SimulatedTarget(self.time, lambda nodes, context: FLAT(nodes))
        self.engine = Engine(target, 8, clock=self.time)

    def add(self, verifier: Synthetic, tokens: int, seed: int = 0) -> Completion:
        return self.engine.add(
            Request(
                [1] * 120,
                verifier,
                self.policy,
                max_new_tokens=tokens,
                drafter=self.drafter,
                sampling=Sampling(seed=seed),
                share_prefix=False,
            )
        )


def seconds(policy: object, chance: float, batch: int, level: float, token: float = 0.0) -> float:
    """Seconds of a batch of requests of 300 tokens."""
    simulation = Simulation(policy, level, token)
    for seed in range(batch):
        simulation.add(Synthetic(chance), 300, seed)
    list(simulation.engine.run())
    return simulation.time.now


@pytest.mark.parametrize(
    ("chance", "batch", "level"),
    [(0.52, 1, 0.0008), (0.8, 1, 0.0008), (0.8, 8, 0.0020), (0.9, 4, 0.0015), (0.3, 8, 0.0040)],
)
def test_a_dear_drafter_drafts_about_as_far_as_pays(chance: float, batch: int, level: float) -> None:
    """A batch shares its calls; each costs by the depth, not by the drafted tokens."""
    fixed = [seconds(Fixed(k, k), chance, batch, level, 0.00002) for k in (0, 1, 2, 3, 5, 8)]
    assert seconds(Goodput(FLAT), chance, batch, level, 0.00002) < 1.1 * min(fixed)


def test_reading_the_prompt_does_not_make_a_drafter_seem_dear() -> None:
    """The first call takes as long as a hundred later ones."""
    drafted = []
    for token_seconds in (0.0, 0.001):
        simulation = Simulation(Goodput(FLAT), 0.0012, token_seconds)
        completion = simulation.add(Synthetic(0.6), 100)
        list(simulation.engine.run())
        drafted.append(completion.stats.drafted / completion.stats.steps)
    assert drafted[0] > 1
    assert drafted[1] > 0.8 * drafted[0]


@pytest.mark.parametrize(
    "curve",
    [
        CostCurve((1, 8, 64), (0.0090, 0.0250, 0.1500)),
        CostCurve((1, 8, 64), (0.0090, 0.0091, 0.0100)),
        CostCurve((1, 8, 64), (0.0180, 0.0200, 0.0360)),
    ],
    ids=["too steep", "too flat", "twice as slow"],
)
@pytest.mark.parametrize(("chance", "batch"), [(0.6, 1), (0.8, 1), (0.7, 8)])
def test_a_curve_that_was_measured_badly_is_put_right(curve: CostCurve, chance: float, batch: int) -> None:
    """Steps take what ``FLAT`` says, whatever was measured before."""
    right = seconds(Goodput(FLAT), chance, batch, 0.0008)
    assert seconds(Goodput(curve), chance, batch, 0.0008) < 1.06 * right


def test_nodes_that_cost_more_than_was_measured_are_noticed() -> None:
    """Behind a long text each node has all of it to look at; the curve knows a short one."""

    def true(nodes: int) -> float:
        return FLAT(nodes) + 0.0004 * nodes

    policy = Goodput(FLAT)
    for step in range(80):
        nodes = (1, 6, 7, 6, 8)[step % 5]
        policy.plan([], Load(1, last=StepCost(1, nodes, 900, true(nodes), {})))
    for nodes in (1, 4, 8):
        assert policy._seconds(nodes) == pytest.approx(true(nodes), rel=0.05)


class Stalling(Reading):
    """Now and then something else runs on the machine, and a call takes as long as five steps."""

    calls = 0

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        self.calls += 1
        if self.calls in (2, 12, 40):
            self.time.now += 0.05
        return super().propose(jobs)


def test_a_call_that_was_held_up_does_not_make_a_drafter_seem_dear() -> None:
    drafted = []
    for drafter in (Reading, Stalling):
        simulation = Simulation(Goodput(FLAT), 0.0012, drafter=drafter)
        completion = simulation.add(Synthetic(0.6), 150)
        list(simulation.engine.run())
        drafted.append(completion.stats.drafted / completion.stats.steps)
    assert drafted[1] > 0.9 * drafted[0]


def test_depths_that_were_given_up_early_are_tried_again() -> None:
    """Three refusals at the second depth say little once the first has long been kept."""
    known = ByDepth(0.98)
    for _ in range(3):
        known.judge(0, 1.0)
        known.judge(1, 0.0)
    before = known.rates(2)[1]
    for _ in range(60):
        known.judge(0, 1.0)
        known.fade(1)
    assert before < 0.45
    assert known.rates(2)[1] > 0.85


def test_a_new_text_is_thought_to_be_drafted_as_well_as_others_were() -> None:
    usual = ByDepth(0.98)
    for _ in range(50):
        usual.judge(0, 0.0)
        usual.judge(1, 1.0)
    new = ByDepth(0.98)
    assert new.rates(2, usual.rates(2)) == usual.rates(2)
    for _ in range(10):
        new.judge(0, 1.0)
    assert new.rates(1, usual.rates(1))[0] > 0.8


def test_a_drafter_that_saves_less_than_it_takes_to_read_a_text_is_left_aside() -> None:
    """It takes a quarter of the whole answer's time to read the prompt, and saves a tenth of it."""
    policy, took = Goodput(FLAT), []
    for _ in range(6):
        simulation = Simulation(policy, 0.002, 0.0015)
        completion = simulation.add(Synthetic(0.4), 80)
        list(simulation.engine.run())
        took.append(completion.stats.drafted)
    assert took[0] > 0
    assert took[3:] == [0, 0, 0]


def test_a_drafter_that_saves_more_than_it_takes_to_read_a_text_is_used() -> None:
    policy = Goodput(FLAT)
    for _ in range(6):
        simulation = Simulation(policy, 0.0005, 0.0002)
        completion = simulation.add(Synthetic(0.8), 300)
        list(simulation.engine.run())
    assert completion.stats.drafted > 100


def test_a_dear_drafter_is_tried_again_and_the_trial_is_scored() -> None:
    """A drafter that was always sure and wrong; no draft of it would be scored for what it says."""
    simulation = Simulation(Goodput(FLAT, retry=8), 0.003)
    verifier = Synthetic(0.0)
    completion = simulation.add(verifier, 1200)
    while len(completion.tokens) < 300:
        simulation.engine.step()
    assert completion.stats.drafted < 100
    judged = sum(completion.stats.proposed_by_depth)
    while len(completion.tokens) < 400:
        simulation.engine.step()
    assert sum(completion.stats.proposed_by_depth) - judged >= 10
    verifier.rate = 0.97
    list(simulation.engine.run())
    assert completion.stats.accepted > 300


@pytest.mark.parametrize("make", [lambda: Goodput(FLAT), AcceptanceThreshold])
def test_forced_tokens_teach_nothing_about_the_drafter(make: Callable[[], object]) -> None:
    policy = make()
    simulation = Simulation(policy, 0.001)
    simulation.add(Synthetic(0.5), 50)
    for _ in range(3):
        simulation.engine.step()
    record = simulation.engine.running[0].record
    before = repr(record.memory)
    policy.observe(record, TokenTree.chain([1, 0, 0], "json-schema"), [0, 1, 2], 0.1)
    assert repr(record.memory) == before
