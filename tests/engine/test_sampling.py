"""Warps equal transformers' processors; penalties and words follow the prefix."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ventris.engine.errors import BadInput, BrokenModel
from ventris.engine.randomness import Purpose, draw, uniform
from ventris.engine.sampling import (
    Sampling,
    SamplingState,
    distribution,
    greedy_token,
    log_probability,
    most_probable,
)


def reference(row: np.ndarray, sampling: Sampling) -> torch.Tensor:
    from transformers import (
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
        TypicalLogitsWarper,
    )

    scores = torch.from_numpy(row)[None].clone()
    ids = torch.zeros((1, 1), dtype=torch.long)
    warpers = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    if sampling.typical_p < 1:
        warpers.append(TypicalLogitsWarper(sampling.typical_p))
    for warper in warpers:
        scores = warper(ids, scores)
    return scores.softmax(-1)[0]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.6},
        {"top_k": 7},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"typical_p": 0.7},
        {"temperature": 1.4, "top_k": 30, "top_p": 0.9, "min_p": 0.02},
    ],
)
def test_warps_equal_transformers(settings: dict) -> None:
    sampling = Sampling(**{"temperature": 1.0, **settings})
    generator = np.random.default_rng(0)
    for _ in range(20):
        row = generator.normal(size=64) * 3
        ours = distribution(row, sampling)
        assert torch.allclose(ours, reference(row, sampling), atol=1e-9)
        assert ours.dtype == torch.float64


def test_repetition_penalty_equals_transformers() -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    row = np.random.default_rng(1).normal(size=32)
    state = SamplingState(Sampling(repetition_penalty=1.3), [3, 4], (), 10, 32)
    state.advance(9)
    expected = RepetitionPenaltyLogitsProcessor(1.3)(
        torch.tensor([[3, 4, 9]]), torch.from_numpy(row)[None].clone()
    )
    assert np.allclose(state.adjust(row), expected[0].numpy())


def test_penalties_count_the_output_only() -> None:
    state = SamplingState(Sampling(presence_penalty=0.5, frequency_penalty=0.25), [1, 1], (), 10, 4)
    for token in (2, 2, 3):
        state.advance(token)
    assert state.adjust(np.zeros(4)).tolist() == [0.0, 0.0, -1.0, -0.75]


def test_bias_bans_and_minimum_length() -> None:
    sampling = Sampling(logit_bias={1: 2.5}, banned=[[2], [3, 4]], min_new_tokens=2)
    state = SamplingState(sampling, [0], [0], 10, 6)
    first = state.adjust(np.zeros(6))
    assert first[1] == 2.5
    assert first[2] == -math.inf
    assert first[4] == 0
    assert first[0] == -math.inf
    state.advance(3)
    assert state.adjust(np.zeros(6))[4] == -math.inf
    state.advance(5)
    assert state.adjust(np.zeros(6))[0] == 0


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=3), st.data())
def test_forced_words_appear_before_the_limit(words: list[list[int]], data: st.DataObject) -> None:
    limit = sum(map(len, words)) + data.draw(st.integers(0, 5))
    state = SamplingState(Sampling(forced=words), [1], [0], limit, 6)
    for _ in range(limit):
        row = state.adjust(np.array(data.draw(st.lists(st.floats(-3, 3), min_size=6, max_size=6))))
        token = greedy_token(row)
        state.advance(token)
        if token == 0:
            break
    text = state.output
    for word in words:
        assert any(text[i : i + len(word)] == word for i in range(len(text))), (word, text)


def test_a_fork_of_the_state_is_independent() -> None:
    state = SamplingState(Sampling(presence_penalty=1.0, repetition_penalty=2.0), [1], (), 9, 4)
    twin = state.fork()
    twin.advance(2)
    assert state.output == []
    assert state.adjust(np.ones(4)).tolist() == [1.0, 0.5, 1.0, 1.0]


def test_broken_logits_are_named() -> None:
    with pytest.raises(BrokenModel, match="NaN"):
        greedy_token(np.array([0.0, math.nan, 1.0]))
    with pytest.raises(BrokenModel, match="no token is left"):
        greedy_token(np.full(3, -math.inf))


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"top_p": 0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"typical_p": 0},
        {"repetition_penalty": 0},
        {"top_k": -1},
        {"presence_penalty": math.inf},
        {"banned": [[]]},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(BadInput):
        Sampling(**settings)


def test_an_infinite_setting_is_told_so() -> None:
    with pytest.raises(BadInput, match="temperature is inf; it must be 0 or more, and finite"):
        Sampling(temperature=math.inf)


def test_tokens_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(BadInput, match="outside the vocabulary"):
        SamplingState(Sampling(logit_bias={99: 1.0}), [1], (), 5, 10)
    with pytest.raises(BadInput, match="max_new_tokens"):
        SamplingState(Sampling(forced=[[1, 2, 3]]), [1], (), 2, 10)


def test_log_probabilities() -> None:
    row = np.random.default_rng(3).normal(size=50)
    expected = torch.from_numpy(row).log_softmax(-1)
    assert log_probability(row, 7) == pytest.approx(float(expected[7]))
    best = most_probable(row, 5)
    values, ids = expected.topk(5)
    assert [token for token, _ in best] == ids.tolist()
    assert [value for _, value in best] == pytest.approx(values.tolist())


def test_the_most_probable_tokens_of_flat_and_steep_rows() -> None:
    flat = np.zeros(30)
    assert [token for token, _ in most_probable(flat, 4)] == [0, 1, 2, 3]
    steep = -20.0 * np.arange(30)
    assert [token for token, _ in most_probable(steep, 3)] == [0, 1, 2]
    assert len(most_probable(steep, 99)) == 30


def test_uniform_numbers_are_uniform_and_addressed() -> None:
    numbers = np.array([uniform(7, Purpose.TARGET, position) for position in range(20_000)])
    counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
    # Chi-square with 19 degrees of freedom: 43.8 is passed once in a thousand times.
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8
    assert uniform(7, Purpose.TARGET, 3) == uniform(7, Purpose.TARGET, 3)
    assert uniform(7, Purpose.TARGET, 3) != uniform(7, Purpose.DRAFT, 3)
    assert uniform(7, Purpose.TARGET, 3) != uniform(8, Purpose.TARGET, 3)
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03


def test_draws_never_hit_impossible_tokens() -> None:
    probs = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    assert [draw(probs, point) for point in (0.0, 0.4999, 0.5, 0.9999999999999999)] == [1, 1, 3, 3]
