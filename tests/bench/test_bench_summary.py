from __future__ import annotations

import pytest
from bench_runs import made_report, made_run

from ventris.bench.record import BatchRun, Difference, Entrant
from ventris.bench.summary import MULTI_TURN, OVERALL, compare, speeds, summarize

PLAIN = Entrant(name="autoregressive", kind="method", plain="autoregressive")
NGRAM = Entrant(name="ngram", kind="method", plain="autoregressive", promised=True)
PEER = Entrant(name="llama.cpp", kind="peer", plain="llama.cpp")


def test_ratios_pair_the_same_question_and_repeat() -> None:
    runs = [
        made_run("autoregressive", "x", 0, 10.0),
        made_run("autoregressive", "x", 1, 40.0),
        made_run("ngram", "x", 0, 20.0),
        made_run("ngram", "x", 1, 80.0),
        made_run("ngram", "y", 0, 900.0),
    ]
    ratio = compare(runs, "ngram", "autoregressive")
    assert ratio is not None
    assert (ratio.median, ratio.pairs) == (2.0, 2)


def test_turns_of_a_question_count_together() -> None:
    runs = [
        made_run("a", "x", 0, 10.0, turn=0, decode_tokens=10, decode_seconds=1.0),
        made_run("a", "x", 0, 10.0, turn=1, decode_tokens=30, decode_seconds=1.0),
        made_run("a", "z", 0, 10.0, decode_tokens=0, decode_seconds=0.0),
    ]
    assert speeds(runs, "a") == {("x", 0): 20.0}


def test_figures_of_a_cell() -> None:
    parts = {"target": 0.9, "draft": 0.1}
    depth = {"proposed_by_depth": [4, 2], "accepted_by_depth": [3, 1]}
    near = Difference(position=3, gap=0.01, near_tie=True)
    runs = [
        made_run("autoregressive", "x", 0, 50.0),
        made_run("ngram", "x", 0, 100.0, parts=parts, **depth, same=True, peak_growth=5),
        made_run("ngram", "y", 0, 100.0, parts=parts, same=False, difference=near, peak_growth=9),
        made_run("llama.cpp", "x", 0, 25.0, passes=None, decode_passes=None),
    ]
    summary = summarize(made_report(runs, [PLAIN, NGRAM, PEER]))
    cell = summary.cells["ngram", OVERALL]
    assert cell.tokens_per_second == pytest.approx(100.0)
    assert cell.tokens_per_pass == pytest.approx(202 / 102)
    assert cell.acceptance == [0.75, 0.5]
    assert cell.outside_target == pytest.approx(0.1)
    assert (cell.identical, cell.near_ties, cell.broken, cell.peak_growth) == (0.5, 1, 0, 9)
    # 1000 bytes of weights, 100 passes in 2 s.
    assert cell.bandwidth == pytest.approx(50_000)
    peer = summary.cells["llama.cpp", OVERALL]
    assert peer.speedup is None
    assert peer.against_ours is not None
    assert peer.against_ours.median == pytest.approx(0.5)
    assert (peer.bandwidth, peer.tokens_per_pass) == (None, None)


def test_conversation_categories_are_also_given_as_one() -> None:
    runs = [made_run("autoregressive", name, 0, 10.0, category=name) for name in ("writing", "coding", "rag")]
    summary = summarize(made_report(runs, [PLAIN]))
    assert summary.categories == ["writing", "coding", "rag", MULTI_TURN, OVERALL]
    assert summary.cells["autoregressive", MULTI_TURN].questions == 2
    single = summarize(made_report(runs[:1], [PLAIN]))
    assert single.categories == [OVERALL]


def test_entrants_without_runs_are_not_in_the_tables() -> None:
    missing = Entrant(name="transformers", kind="peer", plain="transformers", missing="not installed")
    summary = summarize(made_report([made_run("autoregressive", "x", 0, 10.0)], [PLAIN, missing]))
    assert [entrant.name for entrant in summary.entrants] == ["autoregressive"]


def test_batches_are_compared_group_by_group() -> None:
    rows = [
        BatchRun(contestant="ngram", group=group, repeat=0, size=size, tokens=100, seconds=100 / rate)
        for group, factor in ((0, 3.0), (1, 4.0), (2, 5.0))
        for size, rate in ((1, 10.0), (8, 10.0 * factor))
    ]
    (cell,) = summarize(made_report([made_run("ngram", "x", 0, 1.0)], [NGRAM], rows)).batches
    assert (cell.alone, cell.together) == (pytest.approx(10.0), pytest.approx(40.0))
    assert cell.ratio is not None
    assert cell.ratio.median == pytest.approx(4.0)
