"""Routers recover what was planted, and are judged on what they did not see."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from known_pairs import PROMPTS, DiffersAt, large, seen_with

from ventris.draft import DraftModel
from ventris.model import Model
from ventris.study.routed import Decoding, decode_with_routers, share_of_gap
from ventris.study.routers import (
    LEARNED,
    SIGNALS,
    cut_for_rate,
    cut_that_catches,
    fit_routers,
    random_signal,
)
from ventris.study.run import write
from ventris.study.seen_tokens import see
from ventris.testing import ToyTarget


def planted(threshold: float, answers: int = 8, count: int = 4000, seed: int = 0):
    """Tokens that mismatch where the best probability lies below a threshold, and nowhere else."""
    top = torch.rand(count, generator=torch.Generator().manual_seed(seed)) * 0.98 + 0.01
    return seen_with(top, top < threshold, answers)


def test_the_cut_recovers_a_planted_threshold():
    fitted = fit_routers(planted(0.6))
    (router,) = [one for one in fitted.found if one.name == "confidence"]
    assert router.area.value == 1.0
    last = router.cuts[-1]
    assert last.wanted == 0.95
    # Tokens below 0.95 of the way from 0.01 to the threshold are called.
    assert 1 - last.score == pytest.approx(0.01 + 0.95 * 0.59, abs=0.02)
    assert last.caught.value == pytest.approx(0.95, abs=0.02)
    assert last.calls.value == pytest.approx(0.95 * 0.6, abs=0.02)
    everything = cut_that_catches(SIGNALS["confidence"](fitted.fitting.beliefs), fitted.fitting.mismatch, 1.0)
    assert 1 - everything == pytest.approx(0.6, abs=0.003)


def test_cuts_are_judged_on_answers_that_they_were_not_chosen_on():
    seen = planted(0.4)
    # The answers with odd numbers, which judge, differ up to 0.8.
    judged = seen.question % 2 == 1
    seen.mismatch[judged] = seen.beliefs.top[judged, 0] < 0.8
    fitted = fit_routers(seen)
    cut = fitted.found[0].cuts[-1]
    assert cut.caught.value == pytest.approx(0.95 * 0.39 / 0.79, abs=0.03)
    assert set(fitted.fitting.question.tolist()) == {0, 2, 4, 6}
    assert set(fitted.judging.question.tolist()) == {1, 3, 5, 7}


def test_the_learned_router_finds_what_no_single_signal_tells():
    random = torch.Generator().manual_seed(1)
    top = torch.rand(6000, generator=random) * 0.4 + 0.5
    second = torch.rand(6000, generator=random) * (1 - top)
    # Needed where the second is strong for what the first leaves over.
    mismatch = second / (1 - top) > 0.5
    fitted = fit_routers(seen_with(top, mismatch, 12, second))
    area = {router.name: router.area.value for router in fitted.found}
    assert area["confidence"] < 0.6
    assert area[LEARNED] > 0.95
    learned = fitted.found[-1]
    assert learned.expected == pytest.approx(learned.seen, abs=0.03)


def test_a_router_without_anything_to_see_is_a_coin():
    seen = planted(0.5)
    mismatch = torch.rand(len(seen), generator=torch.Generator().manual_seed(5)) < 0.3
    fitted = fit_routers(seen_with(seen.beliefs.top[:, 0], mismatch, 8))
    for router in fitted.found:
        assert router.area.value == pytest.approx(0.5, abs=0.05)
        assert all(caught == pytest.approx(rate, abs=0.06) for rate, caught in router.curve)


@pytest.mark.parametrize(
    ("threshold", "answers", "reason"),
    [(0.0, 8, "never differs"), (1.0, 8, "always differs"), (0.5, 2, "at least 4 answers")],
)
def test_nothing_to_route(threshold, answers, reason):
    assert reason in fit_routers(planted(threshold, answers))


def test_cuts_for_rates():
    scores = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    for rate, count in ((0, 0), (0.2, 1), (0.6, 3), (1, 5)):
        assert int((scores >= cut_for_rate(scores, rate)).sum()) == count
    tied = torch.tensor([0.9, 0.5, 0.5, 0.5])
    assert int((tied >= cut_for_rate(tied, 0.5)).sum()) == 1  # the ties would be too many
    assert cut_that_catches(torch.arange(20.0), torch.ones(20, dtype=torch.bool), 0.95) == 1.0


# --- decoding


def decoding(small: ToyTarget, tokens: int = 15) -> Decoding:
    model = Model(large())
    return Decoding(model, small, write(model, PROMPTS, tokens), tokens)


def test_never_is_the_small_model_and_always_the_large_one():
    small = ToyTarget(8, seed=7, sharpness=2.0)
    both = decoding(small)
    alone = [list(answer.tokens) for answer in write(Model(small), PROMPTS, 15)]
    never = both.with_router(SIGNALS["confidence"], math.inf)
    assert never.answers == alone
    assert never.rate == 0
    always = both.with_router(SIGNALS["confidence"], -math.inf)
    assert always.answers == [list(answer.tokens) for answer in both.references]
    assert always.rate == 1


def test_a_router_decides_token_by_token():
    target, small = large(), ToyTarget(8, seed=7, sharpness=2.0)
    written = decoding(small).with_router(SIGNALS["confidence"], 0.6)
    calls = 0
    for prompt, answer in zip(PROMPTS, written.answers, strict=True):
        text = list(prompt)
        for token in answer:
            law = small.logits(text).softmax(-1)
            asked = 1 - float(law.max()) >= 0.6
            calls += asked
            assert token == int((target if asked else small).logits(text).argmax())
            text.append(token)
    assert sum(written.calls) == calls
    assert 0 < written.rate < 1


def test_a_router_that_calls_where_it_is_needed_gives_the_large_model_s_text():
    # Sure everywhere but where it differs.
    small = DiffersAt(8, range(2, 40, 3), sure=8.0)
    both = decoding(small)
    seen = see(small, both.references)
    runs = decode_with_routers(both, "toy", {"confidence": SIGNALS["confidence"]}, seen, [0.4])
    (run,) = runs.runs
    assert run.score == cut_for_rate(SIGNALS["confidence"](seen.beliefs), 0.4)
    assert run.found.likeness == 100
    assert run.found.closed == 1
    assert run.found.nats == pytest.approx(runs.large_nats)
    assert run.found.rate < 0.6
    assert run.random.closed < 0.9
    assert run.random.rate == pytest.approx(run.found.rate, abs=0.15)
    assert run.gain[0] > 0
    assert runs.small_likeness < 60


def test_a_cut_on_the_confidence_is_the_policy_confidence_stop():
    """A user decodes with a cut of the report by parts that are there without a study."""
    small = ToyTarget(8, seed=7, sharpness=2.0)
    both = decoding(small)
    written = both.with_router(SIGNALS["confidence"], 0.6)
    assert 0 < written.rate < 1
    for prompt, answer in zip(PROMPTS, written.answers, strict=True):
        done = both.model.generate(
            prompt,
            max_new_tokens=16,
            draft=DraftModel(small, depth=64),
            policy="confidence-stop:confidence=0.4,depth=64",
            verifier="threshold-rollback:nats=inf",
        )
        assert done.tokens[:15] == answer


def test_random_calls_are_as_often_as_asked():
    small = ToyTarget(8, seed=7, sharpness=2.0)
    rates = [decoding(small, 60).with_router(random_signal(0), 1 - rate).rate for rate in (0.1, 0.5)]
    assert rates == pytest.approx([0.1, 0.5], abs=0.07)


def test_the_gap():
    assert share_of_gap(np.array([10.0, 20.0]), np.array([40.0, 60.0])) == (0.3, None)
    share, (low, high) = share_of_gap(np.array([10.0, 20.0, 0.0]), np.array([40.0, 60.0, 50.0]))
    assert low <= share == 0.2 <= high
    assert share_of_gap(np.zeros(3), np.zeros(3)) == (None, None)
