from __future__ import annotations

import numpy as np
import pytest

from ventris.bench.report import wording
from ventris.bench.statistics import Ratio, median_ratio


def test_median_is_over_questions_of_the_medians_over_repeats() -> None:
    ratio = median_ratio([[1.0, 2.0, 9.0], [3.0, 3.0, 3.0], [5.0, 4.0, 6.0]])
    assert ratio is not None
    assert ratio.median == 3.0
    assert ratio.pairs == 9


def test_interval_of_equal_ratios_is_a_point() -> None:
    ratio = median_ratio([[1.5, 1.5]] * 4)
    assert ratio is not None
    assert (ratio.low, ratio.high) == (1.5, 1.5)
    assert ratio.verdict == "faster"


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for trial in range(200):
        ratio = median_ratio([[value] for value in rng.lognormal(0.0, 0.2, 25)], seed=trial, draws=300)
        assert ratio is not None
        assert ratio.low is not None
        assert ratio.high is not None
        inside += ratio.low <= 1.0 <= ratio.high
    # The percentile bootstrap of a median of 25 holds its level within a few points.
    assert 180 <= inside <= 200


def test_the_same_seed_gives_the_same_interval() -> None:
    groups = [[1.0, 1.2], [0.9, 1.4], [1.1, 1.05]]
    assert median_ratio(groups, seed=3) == median_ratio(groups, seed=3)


def test_few_runs_give_no_interval_and_no_claim() -> None:
    ratio = median_ratio([[1.4], [1.6]])
    assert ratio == Ratio(1.5, None, None, 2)
    assert ratio.verdict == "too few runs"
    assert "too few runs" in wording.ratio(ratio)
    assert median_ratio([[], []]) is None


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.9, 1.1, "no difference"), (1.0, 1.3, "no difference"), (1.01, 1.3, "faster"), (0.8, 0.99, "slower")],
)
def test_a_difference_is_claimed_if_the_interval_leaves_1_out(low: float, high: float, verdict: str) -> None:
    ratio = Ratio((low + high) / 2, low, high, 9)
    assert ratio.verdict == verdict
    shown = wording.ratio(ratio)
    assert shown.startswith("no difference") == (verdict == "no difference")
    assert f"{low:.2f}" in shown
