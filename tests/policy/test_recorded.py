"""Recorded texts and drafts: served as the model would have served them, and the policies that they judge."""

from __future__ import annotations

import pytest

from ventris.draft import DraftModel, NGram
from ventris.engine.batch import Engine
from ventris.engine.parts import Drafter, Policy
from ventris.engine.request import Completion, Request
from ventris.engine.tree import TokenTree
from ventris.model import Model
from ventris.policy import Fixed, SmartSpec
from ventris.testing.recorded import (
    DraftPrice,
    Priced,
    Recorded,
    RecordedDrafter,
    Recording,
    measured_price,
    record,
)
from ventris.testing.simulated import SimulatedTarget, VirtualTime
from ventris.testing.toy import ToyTarget

MODEL = Model(ToyTarget(vocab_size=12, memory=2, sharpness=5.0))
DRAFT = ToyTarget(vocab_size=12, memory=2, sharpness=5.0, blend=(9, 0.4))
PROMPTS = [[1, 2, 3], [4, 5], [6] * 20, [1, 2, 1, 2, 1, 2]]
TOKENS = 40
FREE = DraftPrice(0.0, 0.0, 0.0)


def replayed(
    recordings: list[Recording],
    drafter: Drafter | None,
    policy: Policy,
    latency: object = lambda nodes, context: 0.01,
    time: VirtualTime | None = None,
) -> list[Completion]:
    engine = Engine(
        SimulatedTarget(time or VirtualTime(), latency, 12), len(recordings), clock=time or VirtualTime()
    )
    completions = [
        engine.add(
            Request(
                each.prompt,
                Recorded(each),
                policy,
                max_new_tokens=len(each.output),
                drafter=drafter,
                share_prefix=False,
            )
        )
        for each in recordings
    ]
    list(engine.run())
    return completions


@pytest.mark.parametrize("length", [1, 3, 6])
@pytest.mark.parametrize("kind", ["chain", "n-gram"])
def test_a_replay_keeps_what_the_model_kept(kind: str, length: int) -> None:
    if kind == "chain":
        drafter: Drafter = DraftModel(DRAFT, depth=6)
        recordings = record(MODEL, PROMPTS, [drafter], TOKENS)
        again: Drafter = RecordedDrafter(drafter.name, drafter.shape, recordings)
    else:
        drafter = again = NGram(width=1)
        recordings = record(MODEL, PROMPTS, [], TOKENS)
    real = MODEL.generate(
        PROMPTS, max_new_tokens=TOKENS, ignore_eos=True, draft=drafter, policy=Fixed(length, length)
    )
    found = replayed(recordings, Priced(again, VirtualTime(), FREE), Fixed(length, length))
    assert [each.tokens for each in found] == [each.tokens for each in real]
    assert sum(each.stats.accepted for each in real) > 0
    for mine, theirs in zip(found, real, strict=True):
        assert (mine.stats.steps, mine.stats.drafted) == (theirs.stats.steps, theirs.stats.drafted)
        assert mine.stats.accepted_by_depth == theirs.stats.accepted_by_depth


def test_an_answer_that_fails_is_not_recorded() -> None:
    class Failing(NGram):
        def start(self, request):
            raise ValueError("no start")

    with pytest.raises(ValueError, match="no start"):
        record(MODEL, PROMPTS[:1], [Failing()], 10)


def test_a_call_takes_what_it_is_priced_at() -> None:
    time = VirtualTime()
    recordings = record(MODEL, PROMPTS[:1], [], 10)
    tree = TokenTree.chain([0, recordings[0].output[1], recordings[0].output[2]], "x")
    recordings[0].trees["x"] = {1: tree}
    drafter = Priced(RecordedDrafter("x", "chain", recordings), time, DraftPrice(0.5, 0.1, 0.02))
    (found,) = replayed(recordings, drafter, Fixed(2, 2), lambda nodes, context: 1.0, time)
    assert found.stats.accepted == 2
    # Eight passes; every call costs its half second, the one that drafts two levels and two tokens besides.
    calls = time.now - found.stats.steps * 1.0
    assert calls % 0.5 == pytest.approx(0.2 + 0.04)


def test_a_price_is_measured() -> None:
    price = measured_price(MODEL, PROMPTS, DraftModel(DRAFT, depth=6), 2)
    assert min(price.call, price.level, price.node) >= 0.0
    assert price(6, 6) > 0.0


def confident(prompt: list[int], tokens: int) -> Recording:
    """Drafts that are right and sure in one step (of two tokens, then), wrong and unsure in the next."""
    trees = {}
    for place in range(1, tokens - 1):
        right = place % 3 == 0
        trees[place] = TokenTree([0, 5 if right else 7], [-1, 0], [1.0, 0.95 if right else 0.55], "x")
    return Recording(prompt, [5] * tokens, {"x": trees})


def test_sure_drafts_are_scored_and_doubtful_ones_are_not() -> None:
    """Half of the drafts are kept; without a look at the confidence all or none would be scored."""
    recordings = [confident([1, number], 200) for number in range(4)]
    drafter = Priced(RecordedDrafter("x", "chain", recordings), VirtualTime(), FREE)
    policy = SmartSpec(lambda nodes, context: 0.004 + 0.001 * nodes)
    found = replayed(recordings, drafter, policy, policy.latency)
    drafted = sum(each.stats.drafted for each in found)
    assert sum(each.stats.accepted for each in found) / drafted > 0.8
    assert drafted > 100


def test_drafts_that_were_not_scored_count_for_acceptance() -> None:
    """They were paid for, so what planning goes by must not be the share of the sure ones alone."""
    recordings = [confident([1, 2], 400)]
    drafter = Priced(RecordedDrafter("x", "chain", recordings), VirtualTime(), FREE)
    policy = SmartSpec(lambda nodes, context: 0.001 + 0.002 * nodes)
    replayed(recordings, drafter, policy, policy.latency)
    # Half of them are sure and kept, half count by their chance of 0.55.
    assert policy._usual("x") == pytest.approx(0.77, abs=0.06)
