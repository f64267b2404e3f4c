"""Threshold rollback keeps what lies within its distance, every position judged, and greedy at its limits."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ventris.draft import DraftModel, NGram, Stack
from ventris.engine.batch import Engine
from ventris.engine.errors import BadInput, Incompatible
from ventris.engine.ledger import MemoryLedger
from ventris.engine.parts import RequestView
from ventris.engine.request import Completion, Request
from ventris.engine.sampling import Sampling, SamplingState
from ventris.engine.tree import TokenTree
from ventris.engine.walk import Walk
from ventris.parts import Workshop, build_one
from ventris.policy import ConfidenceStop
from ventris.testing import ToyTarget, check_guide
from ventris.testing.checks import run
from ventris.testing.guides import NoRepeatedPairs
from ventris.verify import Greedy, ThresholdRollback
from ventris.verify.threshold_rollback import divergence

VOCABULARY = 8


def walk_over(tokens: list[int], logits: torch.Tensor, temperature: float = 0.0) -> Walk:
    """A walk over a drafted chain; ``logits[i]`` are those after ``tokens[i]``."""
    sampling = Sampling(temperature=temperature, seed=3)
    view = RequestView(ToyTarget(VOCABULARY), [0], [0], sampling, 50, frozenset(), MemoryLedger())
    return Walk(TokenTree.chain(tokens), logits, view, SamplingState(sampling, [0], [], 50, VOCABULARY))


def small_and_large() -> tuple[ToyTarget, ToyTarget]:
    large = ToyTarget(VOCABULARY, seed=1, sharpness=3.0, memory=3)
    small = ToyTarget(VOCABULARY, seed=1, sharpness=3.0, memory=3, blend=(7, 0.5))
    return small, large


def decode(confidence: float, nats: float, depth: int = 10, tokens: int = 60) -> Completion:
    small, large = small_and_large()
    engine = Engine(large)
    completion = engine.add(
        Request(
            [1, 2],
            ThresholdRollback(nats),
            ConfidenceStop(confidence, depth),
            tokens,
            drafter=DraftModel(small, depth=64),
        )
    )
    for _ in engine.run():
        pass
    assert completion.error is None
    return completion


def greedy(target: ToyTarget, tokens: int) -> list[int]:
    return run(target, Greedy(), prompts=[[1, 2]], tokens=tokens)[0].tokens


def test_always_handing_over_is_greedy_decoding():
    completion = decode(confidence=1.01, nats=9.0)
    assert completion.tokens == greedy(small_and_large()[1], 60)
    assert completion.stats.drafted == 0


def test_a_distance_of_0_is_greedy_decoding_however_much_is_drafted():
    completion = decode(confidence=0.0, nats=0.0)
    assert completion.tokens == greedy(small_and_large()[1], 60)
    assert completion.stats.drafted > 60  # an explicit 0 is no default


def test_without_limits_the_small_model_writes_and_the_large_one_adds_a_token_at_each_call():
    small, large = small_and_large()
    completion = decode(confidence=0.0, nats=math.inf, depth=4, tokens=30)
    text = [1, 2]
    for place in range(30):
        # Four of the small model, then one of the large one.
        model = large if place % 5 == 4 else small
        text.append(int(model.logits(text).argmax()))
    assert completion.tokens == text[2:]


def test_a_later_bad_token_is_found_behind_one_that_is_only_unlikely():
    logits = torch.full((4, VOCABULARY), -20.0)
    logits[0, :7] = 0.0  # all alike: the draft lies above any small threshold and is the argmax's equal
    logits[1, 5], logits[1, 4] = 2.0, 1.0  # second best
    logits[2, 6], logits[2, 7] = 9.0, 0.0  # nine nats away
    walk = walk_over([0, 0, 4, 7], logits)
    ThresholdRollback(1.5).select(walk)
    assert walk.taken == [0, 4, 6]
    assert walk.accepted == 2


def test_the_margin_judges_by_the_best_token():
    logits = torch.zeros((2, VOCABULARY))
    logits[0, 3] = 0.1  # cross-entropy about 2.1 nats, margin 0.1
    assert _first(walk_over([0, 5], logits), ThresholdRollback(0.2)) == 3
    assert _first(walk_over([0, 5], logits), ThresholdRollback(0.2, "margin")) == 5


def _first(walk: Walk, verifier: ThresholdRollback) -> int:
    verifier.select(walk)
    return walk.taken[0]


@given(st.integers(0, 10_000), st.floats(0, 6), st.floats(0, 6), st.sampled_from([0.0, 1.0]))
def test_a_larger_distance_keeps_no_less(seed: int, one: float, other: float, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    drafted = [0, *torch.randint(VOCABULARY, (5,), generator=generator).tolist()]
    logits = 2 * torch.randn((6, VOCABULARY), generator=generator)
    kept = []
    for nats in sorted((one, other)):
        walk = walk_over(drafted, logits, temperature)
        ThresholdRollback(nats).select(walk)
        kept.append(walk.accepted)
        for node in walk.path[1:]:
            row = logits[walk.tree.parents[node]].log_softmax(-1)
            token = walk.tree.tokens[node]
            drawn = temperature > 0  # a draw of the target's may agree with the draft by chance
            assert drawn or float(-row[token]) <= nats + 1e-5 or token == int(row.argmax())
    if temperature == 0:
        assert kept[0] <= kept[1]


def test_an_end_that_the_small_model_drafts_is_judged_like_any_token():
    logits = torch.zeros((3, VOCABULARY))
    logits[0, 3], logits[1, 6] = 5.0, 30.0
    sampling = Sampling()
    view = RequestView(ToyTarget(VOCABULARY), [0], [0], sampling, 50, frozenset([7]), MemoryLedger())
    tree = TokenTree.chain([0, 3, 7])
    walk = Walk(tree, logits, view, SamplingState(sampling, [0], [7], 50, VOCABULARY))
    ThresholdRollback(5.0).select(walk)
    assert walk.taken == [3, 6]


def test_a_mask_holds():
    check_guide(NoRepeatedPairs)
    small, large = small_and_large()
    text = run(large, ThresholdRollback(50.0), DraftModel(small, depth=5), [NoRepeatedPairs()], tokens=40)[
        0
    ].tokens
    pairs = list(pairwise(text))
    assert len(set(pairs)) == len(pairs)


def test_calls_of_the_large_model_fall_with_the_threshold_of_confidence():
    steps = [decode(confidence, nats=3.0).stats.steps for confidence in (0.0, 0.5, 0.9, 1.01)]
    assert steps == sorted(steps)
    assert steps[0] < steps[-1] == 60


def test_what_lies_below_the_confidence_is_not_scored():
    small, large = small_and_large()
    completion = decode(confidence=0.8, nats=0.0)
    text = [1, 2]
    drafted = 0
    while len(text) < 62:
        ahead = list(text)
        while len(ahead) - len(text) < min(10, 61 - len(text)):
            row = small.logits(ahead).softmax(-1)
            if float(row.max()) < 0.8:
                break
            ahead.append(int(row.argmax()))
        drafted += len(ahead) - len(text)
        for token in [*ahead[len(text) :], -1]:
            text.append(int(large.logits(text).argmax()))
            if text[-1] != token:
                break
    assert completion.tokens == text[2:]
    assert completion.stats.drafted == drafted


def test_it_says_that_it_is_approximate():
    guarantee = decode(0.6, 3.0).guarantee
    assert guarantee is not None
    assert not guarantee.exact
    assert "threshold-rollback" in guarantee.statement


def test_the_divergence_is_that_of_target_and_drafter():
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1))
    p, q = logits.softmax(-1), torch.full((VOCABULARY,), 1 / VOCABULARY)
    expected = float((p * (p / q).log()).sum())
    assert divergence(logits, q) == pytest.approx(expected, abs=1e-6)
    assert divergence(logits, p) == pytest.approx(0, abs=1e-2)
    # What the drafter cannot say costs as much as its share of the uniform distribution, not everything.
    certain = torch.eye(VOCABULARY)[0]
    assert math.isfinite(divergence(logits, certain))
    assert divergence(logits, certain) > divergence(logits, q)


def test_a_draft_is_kept_where_the_two_models_think_alike_whatever_it_says():
    small, large = small_and_large()
    drafter = DraftModel(small, depth=4)

    def text(nats: float, model: DraftModel = drafter) -> list[int]:
        return run(large, ThresholdRollback(nats, "divergence"), model, prompts=[[1, 2]], tokens=30)[0].tokens

    assert text(0.0) == greedy(large, 30)
    assert text(1e-3, DraftModel(large, depth=4)) == greedy(large, 30)
    everything = [1, 2]
    for place in range(30):
        model = large if place % 5 == 4 else small
        everything.append(int(model.logits(everything).argmax()))
    assert text(1e9) == everything[2:]
    expected = [1, 2]
    while len(expected) < 32:
        depth = min(4, 31 - len(expected))
        for place in range(depth + 1):
            own, other = large.logits(expected), small.logits(expected)
            near = divergence(own, other.softmax(-1)) <= 0.4
            drafted, wanted = int(other.argmax()), int(own.argmax())
            keeps = place < depth and (near or drafted == wanted)
            expected.append(drafted if keeps else wanted)
            if not keeps:
                break
    assert text(0.4) == expected[2:]


def test_beliefs_are_kept_for_those_who_ask_and_follow_their_nodes():
    small, large = small_and_large()
    seen: list[TokenTree] = []

    class Spy(ThresholdRollback):
        def select(self, walk: Walk) -> None:
            seen.append(walk.tree)
            super().select(walk)

    run(large, Spy(1.0, "divergence"), DraftModel(small, width=2, samples=0), tokens=8)
    tree = next(tree for tree in seen if len(tree) > 3)
    assert tree.beliefs[0].sum() == pytest.approx(1)
    last = max(node for node in tree.beliefs if node)
    kept = tree.keep(tree.path_to(last))
    assert torch.equal(kept.beliefs[len(kept) - 1], tree.beliefs[last])
    seen.clear()
    run(large, Spy(1.0), DraftModel(small), tokens=8)
    assert not any(tree.beliefs for tree in seen)


def test_a_drafter_without_a_distribution_is_refused():
    _, large = small_and_large()
    verifier = ThresholdRollback(1.0, "divergence")
    with pytest.raises(Incompatible, match="this drafter tells none"):
        run(large, verifier, NGram())
    with pytest.raises(Incompatible, match="tells none"):
        run(large, verifier, Stack([NGram(), DraftModel(small_and_large()[0])]))
    run(large, ThresholdRollback(1.0), NGram())


def test_a_mask_holds_for_the_divergence_too():
    small, large = small_and_large()
    loose = ThresholdRollback(50.0, "divergence")
    text = run(large, loose, DraftModel(small, depth=5), [NoRepeatedPairs()], tokens=40)[0].tokens
    pairs = list(pairwise(text))
    assert len(set(pairs)) == len(pairs)


def test_it_is_registered_with_its_options():
    built = build_one("verifier", "threshold-rollback:nats=0,distance=margin", Workshop())
    assert (built.nats, built.distance) == (0.0, "margin")
    policy = build_one("policy", "confidence-stop:0,depth=3", Workshop())
    assert (policy.confidence, policy.depth) == (0.0, 3)
    with pytest.raises(BadInput, match="nats"):
        build_one("verifier", "threshold-rollback:-1", Workshop())
