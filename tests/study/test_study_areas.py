"""Areas under ROC curves: the value counted pair by pair, and intervals that know what an answer is."""

from __future__ import annotations

import pytest
import torch

from ventris.study.areas import area
from ventris.train.probe import area_under_curve


def test_the_value_is_the_share_of_pairs_in_the_right_order():
    random = torch.Generator().manual_seed(0)
    # Few different scores, so that there are ties.
    scores = torch.randint(0, 5, (120,), generator=random) / 4
    needed = torch.rand(120, generator=random) < 0.2 + 0.6 * scores
    question = 3 * torch.arange(6).repeat_interleave(20)
    pairs = [
        0.5 if one == other else float(one > other)
        for one in scores[needed].tolist()
        for other in scores[~needed].tolist()
    ]
    found = area(scores, needed, question)
    assert found.value == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert found.value == pytest.approx(area_under_curve(scores, needed), abs=1e-12)
    assert found.low < found.value < found.high


def test_the_interval_is_that_of_whole_answers():
    random = torch.Generator().manual_seed(1)
    needed = torch.rand(4000, generator=random) < 0.3
    helpful = torch.rand(4000, generator=random) + 0.5 * needed
    harmful = torch.rand(4000, generator=random) - 0.5 * needed
    question = torch.arange(20).repeat_interleave(200)

    def width(good):
        found = area(torch.where(good, helpful, harmful), needed, question)
        return found.high - found.low

    # As many tokens each way; in whole answers they hang together.
    assert width(question % 2 == 0) > 3 * width(torch.arange(4000) % 2 == 0)


def test_what_has_no_area_or_no_interval():
    scores, question = torch.arange(8.0), torch.arange(4).repeat_interleave(2)
    never = torch.zeros(8, dtype=torch.bool)
    assert area(scores, never, question) is None
    assert area(scores, ~never, question) is None
    sorted_out = area(scores, scores > 3, question)
    assert (sorted_out.value, sorted_out.low, sorted_out.high) == (1.0, None, None)
    assert area(-scores, scores > 3, question).value == 0.0
    two = area(scores, scores % 3 == 0, question // 2)
    assert (two.low, two.high) == (None, None)
    assert area(torch.empty(0), torch.empty(0, dtype=torch.bool), torch.empty(0, dtype=torch.int64)) is None
