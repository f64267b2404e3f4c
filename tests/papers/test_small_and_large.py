"""The reproductions that pair a small model with a large one, and that of JSONSchemaBench, on tiny models."""

from __future__ import annotations

import pytest

from ventris.bench.likeness import longest_common
from ventris.papers.jsonschemabench import reproduce_jsonschemabench
from ventris.papers.spectr import reproduce_spectr


@pytest.fixture(scope="module")
def given(tiny_settings) -> dict[str, object]:
    """Settings of a reproduction; the small model is the large one."""
    return {"draft": f'model:"{tiny_settings["model"]}"', **tiny_settings}


def test_spectr(given):
    found = reproduce_spectr(drafts=(1, 2), depth=3, **given)
    one, two, alone, several = found.ours
    assert 2 < one.value <= 4  # a small model that is the large one, but for rounding
    assert two.baseline == one.value
    assert 2 < two.value <= 4
    assert min(alone.value, several.value) > 0
    assert several.baseline == alone.value


def test_the_longest_common_subsequence():
    assert longest_common([1, 2, 3, 4, 5], [9, 2, 4, 3, 5]) == 3
    assert longest_common([], [1]) == 0
    assert longest_common([7, 7, 7], [7, 7]) == 2


@pytest.mark.long
def test_jsonschemabench_on_our_own_schemas():
    found = reproduce_jsonschemabench(limit=3, max_new_tokens=48, threads=1)
    rows = {row.name: row for row in found.ours}
    assert rows["invalid instances that ventris lets through"].value == 0
    assert rows["valid instances that ventris rejects"].value == 0
    first = found.ours[0]
    assert first.value >= first.baseline
