from __future__ import annotations

import io
from pathlib import Path

import pytest
from bench_runs import made_run
from rich.console import Console

from ventris.bench import Claim, print_claims
from ventris.bench.claims import ClaimsReport, promises, write_claims
from ventris.bench.claims.promises import PROMISES, Measured
from ventris.bench.record import BatchRun, ForwardCost, Run

PARTS = {"target": 0.95, "draft": 0.0, "other": 0.05}


def measured(**fields: object) -> Measured:
    runs: list[Run] = []
    for category, factor in (("rag", 2.0), ("summarization", 1.6), ("translation", 0.98)):
        for question in range(4):
            for name, rate in (
                ("bfloat16", 40.0),
                ("bfloat16 ngram", 40.0 * factor),
                ("bfloat16 traced", 40.0 / 1.01),
                ("transformers", 10.0),
            ):
                runs.append(made_run(name, f"{category}{question}", 0, rate, category=category, parts=PARTS))
    costs = {"bfloat16": ForwardCost(sizes=[1, 8], seconds=[0.010, 0.013])}
    batches = [
        BatchRun(contestant="bfloat16", group=0, repeat=r, size=size, tokens=100, seconds=100 / rate)
        for r in range(3)
        for size, rate in ((1, 40.0), (8, 160.0))
    ]
    copying = [run for run in runs if run.category != "translation"]
    given = {
        "runs": runs,
        "copying_runs": copying,
        "batch_runs": batches,
        "costs": costs,
        "startups": [2.0, 3.0, 2.5],
    } | fields
    return Measured(**given)  # type: ignore[arg-type]


def test_every_promise_gets_its_figure() -> None:
    claims = {claim.name: claim for claim in (promise(measured()) for promise in PROMISES)}
    figures = {name: claim.value for name, claim in claims.items() if claim.value is not None}
    assert figures == pytest.approx(
        {
            "over-transformers": 4.0,
            "eight-for-one": 1.3,
            "lean-loop-bfloat16": 0.05,
            "copying-bfloat16": 1.6,
            "never-slower-bfloat16": 0.98,
            "batch-of-8": 4.0,
            "quick-start": 2.5,
            "cheap-trace": 0.01,
        }
    )
    assert claims["eight-for-one"].verdict == "miss"
    assert {claims[name].verdict for name in figures if name != "eight-for-one"} == {"pass"}
    assert "translation 0.98x" in claims["never-slower-bfloat16"].note


def test_what_could_not_be_measured_is_said_with_the_reason() -> None:
    claim = promises.over_llama_cpp(measured(missing={"llama.cpp": "not installed"}), promises.INT4)
    assert claim.verdict == "not measured"
    assert "not installed" in claim.note
    assert claim.aim == 1.2


def test_an_interval_around_the_target_is_uncertain() -> None:
    claim = Claim(name="a", title="a", value=1.02, low=0.98, high=1.05, target=1.0)
    assert claim.verdict == "pass"
    assert claim.uncertain
    lower = Claim(name="b", title="b", value=5.0, better="lower", target=4.0, unit="s")
    assert lower.verdict == "miss"
    assert not lower.uncertain


def test_claims_are_printed_and_stored(tmp_path: Path) -> None:
    claims = [promise(measured()) for promise in PROMISES]
    console = Console(file=io.StringIO(), width=120)
    print_claims(claims, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for word in ("pass", "miss", "not measured", "4.00x", "5.0 %", "2.50 s"):
        assert word in shown
    report = ClaimsReport(created="now", seconds=1.0, claims=claims, environments={})
    path = write_claims(report, tmp_path)
    assert ClaimsReport.model_validate_json(path.read_text()) == report
