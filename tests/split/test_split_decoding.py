"""Decoding on a model in two halves: every drafter, prefixes, long prompts, budgets."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pair import Pair, connected
from trained import KINDS, PROMPTS, drafter_of, network_of, torch_place

from ventris import Incompatible, Model
from ventris.draft import DraftModel, NGram, Stack
from ventris.engine import cache as cache_module
from ventris.engine.batch import Engine
from ventris.engine.errors import BadInput, OverBudget
from ventris.engine.footprint import Footprint
from ventris.engine.ledger import MemoryLedger
from ventris.engine.request import Request
from ventris.policy import Fixed
from ventris.testing.checks import run
from ventris.testing.guides import Amateur
from ventris.verify import Coupled, Greedy


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"longspec"}))
def test_trained_drafters(pair, kind):
    """Their taps are in both halves; Kangaroo's layers, two of them, begin in one and end in the other."""
    place = torch_place()
    target = pair("smollm", 1).target
    drafter = drafter_of(kind, replace(place, target=target))
    plain = run(place.target, Greedy(), prompts=PROMPTS, tokens=12)
    drafted = run(target, Greedy(), drafter, prompts=PROMPTS, tokens=12)
    assert [c.tokens for c in drafted] == [c.tokens for c in plain]
    assert all(c.stats.drafted for c in drafted)


def test_a_drafter_that_reads_the_last_layers_cache_is_refused(pair):
    place = replace(torch_place(), target=pair("smollm").target)
    with pytest.raises(Incompatible, match=r"longspec.*two stages.*last layer"):
        KINDS["longspec"].drafter(place.target, network_of("longspec", place))


def test_drawn_drafts_and_drafts_by_a_model_in_two_halves(pair):
    made = pair("smollm")
    drawn = DraftModel(made.target, samples=3)
    stack = Stack([NGram(min_match=2), DraftModel(made.whole, width=3, samples=0)])
    for target, drafter in ((made.whole, drawn), (made.target, stack)):
        for verifier, sampling in ((Greedy(), {}), (Coupled(), {"temperature": 1.0, "seed": 4})):
            plain = run(made.whole, verifier, prompts=PROMPTS, tokens=8, **sampling)
            drafted = run(target, verifier, drafter, prompts=PROMPTS, tokens=8, **sampling)
            assert [c.tokens for c in drafted] == [c.tokens for c in plain]


def test_a_guide_that_asks_a_model_in_two_halves(pair):
    made = pair("smollm")
    one, other = (
        run(made.whole, Greedy(), NGram(), [Amateur(model)], PROMPTS, tokens=8)
        for model in (made.whole, made.target)
    )
    assert [c.tokens for c in other] == [c.tokens for c in one]


def test_a_conversation_reuses_its_rows(pair):
    made = pair("smollm")
    answers = []
    for target in (made.whole, made.target):
        engine = Model(target).engine(max_batch=4, prefix_bytes=10_000_000, chunk=7)
        text, told = [1 + n % 50 for n in range(40)], []
        for _ in range(3):
            several = [[*text, 3], [*text, 4], text]
            done = [engine.add(Request(p, Greedy(), Fixed(), max_new_tokens=8)) for p in several]
            list(engine.run())
            told.append([(each.tokens, each.stats.reused_tokens) for each in done])
            text = [*several[0], *done[0].tokens, 5]
        engine.close()
        answers.append(told)
    assert answers[1] == answers[0]
    assert answers[1][2][0][1] > 40


class Halves:
    """Counts the bytes of all blocks of each half that exist, by the layers in them."""

    def __init__(self) -> None:
        self.peak = {True: 0, False: 0}
        self.now = {True: 0, False: 0}

    def allocate(self, layout: Any, capacity: int) -> Any:
        block = allocate(layout, capacity)
        first, size = layout.counted_layers > 0, block.numel() * block.element_size()
        self.now[first] += size
        self.peak[first] = max(self.peak[first], self.now[first])
        weakref.finalize(block, self.freed, first, size)
        return block

    def freed(self, first: bool, size: int) -> None:
        self.now[first] -= size


allocate = cache_module._block
asked_requests = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 8)), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def uneven():
    """One layer here and three there."""
    made = connected("smollm", 1)
    yield made
    made.target.close()
    made.thread.join(10)


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # A smaller example is not worth the minutes that it takes to find through two threads.
    phases=[Phase.explicit, Phase.generate],
)
@given(asked_requests, st.integers(0, 60_000), st.sampled_from([0, 20_000]), st.booleans())
def test_neither_half_passes_the_budget(
    uneven: Pair, asked: list[tuple[int, int]], spare: int, prefix_bytes: int, drafted: bool
) -> None:
    """Two turns of random prompts that share beginnings, side by side; what exists is counted."""
    target, measured = uneven.target, Halves()
    budget = spare + max(Footprint.of(target).request(2 * (p + n) + 2) for p, n in asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "_block", measured.allocate)
        engine = Engine(target, 4, chunk=16, ledger=MemoryLedger(budget), prefix_bytes=prefix_bytes)
        prompts, turns = [[1 + n % 5 for n in range(prompt)] for prompt, _ in asked], []
        for _ in range(2):
            given = [
                Request(p, Greedy(), Fixed(), max_new_tokens=new, drafter=NGram() if drafted else None)
                for p, (_, new) in zip(prompts, asked, strict=True)
            ]
            done = [engine.add(request) for request in given]
            list(engine.run())
            turns += zip(prompts, asked, done, strict=True)
            prompts = [[*p, *each.tokens, 4, 5] for p, each in zip(prompts, done, strict=True)]
        engine.close()
    for prompt, (_, new), completion in turns:
        assert completion.error is None
        assert completion.tokens == run(uneven.whole, Greedy(), prompts=[prompt], tokens=new)[0].tokens
    assert 0 < measured.peak[True] < measured.peak[False] <= engine.ledger.peak <= budget
    assert engine.ledger.total == 0


def test_the_larger_share_of_the_weights_counts(pair):
    target = pair("smollm", 1).target
    whole = torch_place().target
    assert target.weight_bytes < whole.weight_bytes
    with pytest.raises(BadInput, match=f"the weights take {target.weight_bytes:,} bytes"):
        Model(target, memory_budget=target.weight_bytes - 1)
    enough = target.weight_bytes + Footprint.of(target).request(13)
    model = Model(target, memory_budget=enough)
    assert len(model.generate([1, 2, 3], max_new_tokens=10).tokens) == 10
    with pytest.raises(OverBudget, match=f"the memory budget is {enough - 1:,}"):
        Model(target, memory_budget=enough - 1).generate([1, 2, 3], max_new_tokens=10)
