"""A memory budget holds, whatever is asked: measured by counting what is really there, not by the books."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ventris import Model
from ventris.byte_size import read_bytes
from ventris.draft import DraftModel, NGram, Stack
from ventris.engine import cache as cache_module
from ventris.engine.batch import Engine
from ventris.engine.errors import BadInput, OverBudget
from ventris.engine.footprint import SCRATCH_ROWS, Footprint
from ventris.engine.ledger import MemoryLedger
from ventris.engine.request import Request
from ventris.engine.sampling import Sampling
from ventris.engine.target import Rows, Scores
from ventris.policy import Fixed
from ventris.testing.checks import run
from ventris.testing.guides import Amateur, NoRepeatedPairs
from ventris.testing.toy import ToyTarget
from ventris.verify import Coupled, Greedy

TOY: dict[str, Any] = {"vocab_size": 12, "memory": 2, "sharpness": 5.0}
FOOTPRINT = Footprint.of(ToyTarget(**TOY))
BESIDE: dict[str, Any] = {**TOY, "blend": (9, 0.4)}
"""A model close to the target, for drafts and guides."""


class Measured:
    """Counts the bytes of all cache blocks that exist, and of the logits of the pass that runs."""

    def __init__(self) -> None:
        self.blocks: dict[int, int] = {}
        self.peak = 0

    def allocate(self, layout: Any, capacity: int) -> Any:
        block = allocate(layout, capacity)
        self.blocks[id(block)] = block.numel() * block.element_size()
        weakref.finalize(block, self.blocks.pop, id(block))
        self.peak = max(self.peak, sum(self.blocks.values()))
        return block

    def passed(self, scores: Scores) -> None:
        # The toy computes in float64; a runtime hands float32 out.
        logits = sum(rows.numel() * 4 for rows in scores.logits)
        self.peak = max(self.peak, sum(self.blocks.values()) + logits)


allocate = cache_module._block


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Measured]:
    found = Measured()
    monkeypatch.setattr(cache_module, "_block", found.allocate)
    return found


class Watched(ToyTarget):
    """A toy that shows its passes."""

    def __init__(self, measured: Measured, **settings: Any) -> None:
        super().__init__(**settings)
        self.measured = measured

    def forward(self, batch: list[Rows], taps: Any = ()) -> Scores:
        scores = super().forward(batch, taps)
        self.measured.passed(scores)
        return scores


def drafter_of(kind: str, model: ToyTarget) -> Any:
    return {
        "none": lambda: None,
        "ngram": NGram,
        "model": lambda: DraftModel(model),
        "tree": lambda: DraftModel(model, width=3, samples=0),
        "stack": lambda: Stack([NGram(min_match=3), DraftModel(model)]),
    }[kind]()


def needed(tokens: int, guided: bool) -> int:
    """Bytes that a request needs alone."""
    return FOOTPRINT.request(tokens) + guided * (FOOTPRINT.cache(tokens + SCRATCH_ROWS) + FOOTPRINT.step)


asked_requests = st.lists(
    st.tuples(st.integers(1, 80), st.integers(1, 50), st.booleans()), min_size=1, max_size=5
)


@settings(max_examples=15, deadline=None)
@given(
    asked_requests,
    st.integers(0, 8000),
    st.sampled_from(["none", "ngram", "model", "tree", "stack"]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([0, 1500, 20_000]),
)
def test_no_run_passes_its_budget_and_none_fails(
    asked: list[tuple[int, int, bool]], spare: int, kind: str, temperature: float, prefix_bytes: int
) -> None:
    """Random prompts that share beginnings, two turns each, side by side; budgets from what just suffices."""
    measured = Measured()
    verifier = Coupled() if temperature else Greedy()
    sampling = Sampling(temperature=temperature, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "_block", measured.allocate)
        drafter = drafter_of(kind, Watched(measured, **BESIDE))
        guide = Amateur(Watched(measured, **BESIDE))
        budget = spare + max(needed(2 * (prompt + new) + 2, guided) for prompt, new, guided in asked)
        engine = Engine(
            Watched(measured, **TOY),
            max_batch=4,
            chunk=16,
            ledger=MemoryLedger(budget),
            prefix_bytes=prefix_bytes,
        )
        turns = []
        prompts = [[1 + n % 5 for n in range(prompt)] for prompt, _, _ in asked]
        for _ in range(2):
            completions = [
                engine.add(
                    Request(
                        prompt,
                        verifier,
                        Fixed(),
                        max_new_tokens=new,
                        drafter=drafter,
                        sampling=sampling,
                        guides=[guide] if guided else [],
                    )
                )
                for prompt, (_, new, guided) in zip(prompts, asked, strict=True)
            ]
            list(engine.run())
            turns += list(zip(prompts, asked, completions, strict=True))
            prompts = [[*p, *done.tokens, 4, 5] for p, done in zip(prompts, completions, strict=True)]
        engine.close()
    plain = ToyTarget(**TOY)
    for prompt, (_, new, guided), completion in turns:
        assert completion.error is None
        guides = [Amateur(ToyTarget(**BESIDE))] if guided else []
        expected = run(plain, verifier, None, guides, [prompt], tokens=new, temperature=temperature, seed=3)
        assert completion.tokens == expected[0].tokens
    assert measured.peak <= engine.ledger.peak <= budget
    assert engine.ledger.total == engine.ledger.kept == 0


def test_a_running_request_keeps_the_room_that_it_reserved_when_its_cache_is_forked(
    measured: Measured,
) -> None:
    """A request that begins like a running one reads its rows; the running one opens no further block."""
    shared = [1 + n % 5 for n in range(60)]
    engine = Engine(Watched(measured, **TOY), ledger=MemoryLedger(100_000))
    first = engine.add(Request(shared, Greedy(), Fixed(), max_new_tokens=40))
    for _ in range(3):
        engine.step()
    second = engine.add(Request([*shared, 3], Greedy(), Fixed(), max_new_tokens=40))
    engine.step()
    assert second.stats.reused_tokens == 60
    blocks = len(measured.blocks)
    while first.finish_reason is None:
        engine.step()
    assert len(measured.blocks) <= blocks
    list(engine.run())
    for prompt, completion in ((shared, first), ([*shared, 3], second)):
        assert completion.tokens == run(ToyTarget(**TOY), Greedy(), prompts=[prompt], tokens=40)[0].tokens


def test_the_model_of_memory_is_what_a_run_takes(measured: Measured) -> None:
    """At the end of a text with undrafted steps, exactly its cache and a node of a pass."""
    engine = Engine(Watched(measured, **TOY), ledger=MemoryLedger(FOOTPRINT.request(63)))
    engine.add(Request([1, 2, 3], Greedy(), Fixed(), max_new_tokens=60))
    list(engine.run())
    assert engine.ledger.peak == FOOTPRINT.cache(64) + max(
        FOOTPRINT.scored + FOOTPRINT.passed * k for k in (0, 1)
    )
    assert measured.peak == FOOTPRINT.cache(64) + 12 * 4


def test_drafting_shrinks_with_the_budget_and_then_stops(measured: Measured) -> None:
    drafted = []
    smallest = FOOTPRINT.request(63)
    for spare in (20_000, 4 * (FOOTPRINT.scored + FOOTPRINT.passed + FOOTPRINT.row), 0):
        engine = Engine(Watched(measured, **TOY), ledger=MemoryLedger(smallest + spare))
        completion = engine.add(
            Request([1, 2, 3], Greedy(), Fixed(), max_new_tokens=60, drafter=NGram(), share_prefix=False)
        )
        list(engine.run())
        drafted.append(completion.stats.drafted / completion.stats.steps)
    assert drafted[0] > drafted[1] > drafted[2] == 0


def test_a_draft_model_whose_cache_does_not_fit_sits_out(measured: Measured) -> None:
    cache = FOOTPRINT.cache(63 + SCRATCH_ROWS)
    for spare, drafts in ((cache - 1, False), (20_000, True)):
        drafter = DraftModel(Watched(measured, **BESIDE))
        engine = Engine(Watched(measured, **TOY), ledger=MemoryLedger(FOOTPRINT.request(63) + spare))
        completion = engine.add(Request([1, 2, 3], Greedy(), Fixed(), max_new_tokens=60, drafter=drafter))
        list(engine.run())
        assert (completion.stats.drafted > 0) == drafts


def test_forced_tokens_keep_to_the_budget_too(measured: Measured) -> None:
    plain = run(ToyTarget(**TOY), Greedy(), None, [NoRepeatedPairs()], [[1, 2, 3]], tokens=60)[0]
    for spare in (0, 500, 5000):
        budget = FOOTPRINT.request(63) + spare
        engine = Engine(Watched(measured, **TOY), ledger=MemoryLedger(budget))
        completion = engine.add(
            Request([1, 2, 3], Greedy(), Fixed(), max_new_tokens=60, guides=[NoRepeatedPairs()])
        )
        list(engine.run())
        assert completion.tokens == plain.tokens
        assert engine.ledger.peak <= budget


def test_a_request_that_cannot_fit_is_refused_with_the_figure() -> None:
    figure = FOOTPRINT.request(63)
    model = Model(ToyTarget(**TOY), memory_budget=figure - 1)
    with pytest.raises(OverBudget, match=f"need {figure:,} bytes.* budget is {figure - 1:,}"):
        model.generate([1, 2, 3], max_new_tokens=60)
    assert len(model.generate([1, 2, 3], max_new_tokens=59).tokens) == 59


def test_the_figure_of_a_guide_with_a_model_holds() -> None:
    figure = needed(63, guided=True)
    guide = Amateur(ToyTarget(**BESIDE))
    with pytest.raises(OverBudget, match=f"need {figure:,} bytes"):
        Model(ToyTarget(**TOY), memory_budget=figure - 1).generate(
            [1, 2, 3], max_new_tokens=60, guides=[guide]
        )
    enough = Model(ToyTarget(**TOY), memory_budget=figure)
    assert len(enough.generate([1, 2, 3], max_new_tokens=60, guides=[guide]).tokens) == 60


def test_weights_count() -> None:
    target, draft = ToyTarget(**TOY), ToyTarget(**BESIDE)
    target.weight_bytes, draft.weight_bytes = 10_000, 5_000
    with pytest.raises(BadInput, match="weights take 10,000 bytes and the memory budget is 9,000"):
        Model(target, memory_budget="9kB")
    model = Model(target, memory_budget=10_000 + FOOTPRINT.request(13))
    assert len(model.generate([1, 2, 3], max_new_tokens=10).tokens) == 10
    with pytest.raises(OverBudget, match="10,000 of them for weights"):
        model.generate([1, 2, 3], max_new_tokens=20)
    with pytest.raises(OverBudget, match="15,000 of them for weights"):
        model.generate([1, 2, 3], max_new_tokens=10, draft=DraftModel(draft), policy="fixed")


def test_turns_of_a_conversation_stay_within_the_budget() -> None:
    budget = FOOTPRINT.request(700)
    engine = Model(ToyTarget(**TOY), memory_budget=budget).engine(max_batch=1, prefix_bytes=budget)
    text = [1, 2, 3]
    held = []
    for _ in range(50):
        completion = engine.add(Request(text, Greedy(), Fixed(), max_new_tokens=10, drafter=NGram()))
        list(engine.run())
        assert completion.error is None
        assert completion.stats.reused_tokens == 0 or completion.stats.reused_tokens >= len(text) - 3
        held.append(engine.ledger.total)
        text = [*text, *completion.tokens, 4, 5]
    assert completion.stats.reused_tokens > 0
    # What is kept between turns is the conversation's rows and little more, not the sum of all turns.
    assert held[-1] <= 1.5 * FOOTPRINT.cache(len(text))
    assert engine.ledger.peak <= budget
    engine.close()
    assert engine.ledger.total == 0


@pytest.mark.parametrize(("text", "size"), [("330MB", 330_000_000), ("1.5 GiB", 3 << 29), ("7", 7), (12, 12)])
def test_sizes(text: str | int, size: int) -> None:
    assert read_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "0.5", "-3MB", "3 parsecs", "MB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="no size of memory"):
        read_bytes(text)
