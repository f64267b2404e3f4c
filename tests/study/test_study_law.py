"""The law by size: planted parameters come back, and R² is honest about what it was not fitted to."""

from __future__ import annotations

import numpy as np
import pytest

from ventris.study.law import FEWEST, LEAST, LawFound, find_law, fit_law, fit_line, left_out, r_squared
from ventris.study.shares import resamples

RATIOS = [1.5, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]


def law(x, a=0.3, alpha=0.5, b=0.4):
    return b - a * np.asarray(x) ** -alpha


def answers_with(frequencies, answers=40, tokens=200, seed=0):
    """Mismatches and tokens of answers whose tokens mismatch with given probabilities."""
    random = np.random.default_rng(seed)
    totals = np.full((len(frequencies), answers), float(tokens))
    hits = np.stack([random.binomial(tokens, one, answers) for one in frequencies]).astype(float)
    return hits, totals


def find(ratios, frequencies, **sizes):
    hits, totals = answers_with(frequencies, **sizes)
    return find_law(ratios, hits, totals, resamples(hits.shape[1], 0, 60).astype(float))


def test_planted_parameters_come_back():
    x = np.array(RATIOS)
    found = fit_law(x, law(x))
    assert (found.a, found.alpha, found.b) == pytest.approx((0.3, 0.5, 0.4), rel=0.05)
    assert not found.at_bound
    assert r_squared(law(x), found(x)) > 0.99999
    assert left_out(x, law(x), fit_law) > 0.999


def test_a_planted_law_is_found_in_counted_tokens():
    found = find(RATIOS, law(RATIOS))
    assert isinstance(found, LawFound)
    assert found.r_squared > 0.99
    assert found.left_out > 0.9
    assert found.left_out < found.r_squared
    assert found.points == len(RATIOS)
    assert (found.lowest, found.highest) == (1.5, 64.0)
    for name, true in (("a", 0.3), ("b", 0.4)):
        low, high = found.intervals[name]
        assert low - 0.05 <= true <= high + 0.05
    for at, value, low, high in found.curve:
        assert low - 1e-9 <= value <= high + 1e-9
        assert value == pytest.approx(float(law(at)), abs=0.02)


def test_few_answers_give_wide_intervals():
    many, few = find(RATIOS, law(RATIOS)), find(RATIOS, law(RATIOS), answers=5, tokens=40)

    def width(found, name):
        return found.intervals[name][1] - found.intervals[name][0]

    assert width(few, "b") > 2 * width(many, "b")


def test_points_without_a_law_are_fitted_and_not_predicted():
    x = np.array([1.5, 2.0, 4.0, 8.0, 16.0])
    y = np.array([0.30, 0.10, 0.32, 0.12, 0.31])
    inside, outside = r_squared(y, fit_law(x, y)(x)), left_out(x, y, fit_law)
    assert inside >= 0
    assert outside < 0
    assert left_out(x, y, fit_line) < 0


def test_a_law_that_runs_the_other_way_stands_at_its_bounds():
    x = np.array(RATIOS)
    found = fit_law(x, 0.5 - 0.05 * np.log(x))
    assert "a" in found.at_bound
    assert found.a == pytest.approx(LEAST)
    # It says so by doing worse than the line, which may fall.
    y = 0.5 - 0.05 * np.log(x)
    assert r_squared(y, found(x)) < 0.1
    assert r_squared(y, fit_line(x, y)(x)) == pytest.approx(1)


def test_the_fit_is_the_least_squares_under_its_bounds():
    optimize = pytest.importorskip("scipy.optimize")
    random = np.random.default_rng(3)
    for _ in range(10):
        x = np.sort(random.uniform(1.2, 60, 7))
        y = law(x, *random.uniform(0.06, 0.6, 3)) + random.normal(0, 0.02, 7)
        ours = np.square(y - fit_law(x, y)(x)).sum()
        best = min(
            optimize.least_squares(
                lambda p, x=x, y=y: law(x, *p) - y, start, bounds=(LEAST, [np.inf, 5, np.inf])
            ).cost
            * 2
            for start in ([0.1, 0.5, 0.2], [1.0, 0.1, 1.0], [0.1, 2.0, 0.3])
        )
        assert ours <= best * 1.001 + 1e-9


def test_too_few_ratios_or_no_difference_give_a_reason():
    assert f"at least {FEWEST} ratios of size, and here are 3" in find(RATIOS[:3], law(RATIOS[:3]))
    same = [2.0, 2.0, 2.0, 3.0]
    assert "here are 2" in find(same, law(same))
    assert "nothing for a law to explain" in find(RATIOS[:4], [0.0] * 4)


def test_answers_too_few_to_resample_give_a_reason():
    """One answer is the same in every resample: an interval of no width would feign certainty."""
    assert "at least 3 answers, and here are 1" in find(RATIOS, law(RATIOS), answers=1)
    assert isinstance(find(RATIOS, law(RATIOS), answers=3), LawFound)


def test_with_four_ratios_there_is_nothing_to_leave_out():
    found = find(RATIOS[:4], law(RATIOS[:4]))
    assert found.left_out is None
    assert found.line[1] is None
