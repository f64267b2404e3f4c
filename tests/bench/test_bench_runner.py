from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from bench_runs import QUESTIONS

from ventris.bench import BenchSettings, Report, measure_claims, run_bench
from ventris.bench.contestant import Limits
from ventris.bench.methods import Method
from ventris.bench.own import OwnMethod
from ventris.bench.peers import open_peers, parse_peers
from ventris.bench.peers.base import PeerContext
from ventris.bench.summary import OVERALL, summarize
from ventris.engine.errors import BadInput
from ventris.model import Model


def test_exact_methods_repeat_plain_decoding(toy_report: Report) -> None:
    compared = [run for run in toy_report.runs if run.contestant != "autoregressive"]
    assert compared
    assert all(run.same for run in compared)
    assert not any("promises" in warning for warning in toy_report.warnings)


def test_drafts_save_passes_and_the_counts_agree(toy_report: Report) -> None:
    summary = summarize(toy_report)
    assert summary.cells["autoregressive", OVERALL].tokens_per_pass == 1.0
    always = summary.cells["always", OVERALL]
    assert always.tokens_per_pass is not None
    assert always.tokens_per_pass > 1.2
    for run in toy_report.runs:
        assert run.new_tokens == 12
        assert run.passes is not None
        assert run.accepted + run.passes >= run.new_tokens
        assert sum(run.accepted_by_depth) == run.accepted
        assert 0 < run.decode_tokens < run.new_tokens
        assert sum(run.parts.values()) <= run.decode_seconds * 1.05


def test_batch_rows_are_there(toy_report: Report) -> None:
    assert {run.size for run in toy_report.batch_runs} == {1, 2}
    assert all(run.tokens > 0 and run.seconds > 0 for run in toy_report.batch_runs)


def test_peers_that_cannot_run_stay_in_the_report_with_a_reason(toy_report: Report) -> None:
    missing = {entrant.name: entrant.missing for entrant in toy_report.entrants if entrant.missing}
    assert missing == {"llama.cpp": "the model has no files", "transformers": "the model has no files"}


@dataclass
class _Gguf:
    path: Path
    kind: str = "gguf"


def test_a_peer_that_is_not_installed_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    context = PeerContext(_Gguf(Path("m.gguf")), 1, 64)  # type: ignore[arg-type]
    contestants, (entrant,) = open_peers(parse_peers(["llama.cpp"]), context)
    assert contestants == []
    assert entrant.missing is not None
    assert entrant.missing.startswith("not installed")


def test_peers_are_greedy_only() -> None:
    context = PeerContext(_Gguf(Path("m.gguf")), 1, 64, greedy=False)  # type: ignore[arg-type]
    _, (entrant,) = open_peers(parse_peers(["llama.cpp"]), context)
    assert entrant.missing == "runs at temperature 0 only"


@pytest.mark.parametrize(
    ("peers", "said"),
    [
        (["vllm"], "no peer 'vllm'"),
        (["llama.cpp", "llama.cpp"], "twice"),
        (["llama.cpp:x=1"], "no option 'x'"),
    ],
)
def test_unknown_peers_and_options_are_refused(toy: Model, peers: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        run_bench(BenchSettings(peers=peers), model=toy, questions=QUESTIONS)


@pytest.mark.parametrize("method", ["ngrm", "ngram@fxed", "ngram|gredy", "ngram:depth=2"])
def test_unknown_parts_are_refused_before_anything_is_measured(toy: Model, method: str) -> None:
    with pytest.raises(BadInput):
        run_bench(BenchSettings(methods=[method]), model=toy, questions=QUESTIONS)


def test_the_same_seed_draws_the_same_text_with_and_without_drafts(toy: Model) -> None:
    settings = BenchSettings(temperature=1.0, seed=3, max_new_tokens=10, repeats=1)
    report = run_bench(settings, model=toy, questions=QUESTIONS)
    assert all(run.same for run in report.runs if run.contestant == "ngram")
    assert {entrant.promised for entrant in report.entrants if entrant.name == "ngram"} == {True}


def test_an_approximate_verifier_is_counted_and_promises_nothing(toy: Model) -> None:
    settings = BenchSettings(
        methods=["wild = ngram @ fixed | synthetic:rate=1.0"], max_new_tokens=12, repeats=1
    )
    report = run_bench(settings, model=toy, questions=QUESTIONS)
    wild = next(entrant for entrant in report.entrants if entrant.name == "wild")
    assert not wild.promised
    assert "approximate" in wild.statement
    assert summarize(report).cells["wild", OVERALL].identical is not None
    assert not any("promises" in warning for warning in report.warnings)


def test_outputs_end_at_the_end_token(toy: Model) -> None:
    method = OwnMethod(toy, Method("autoregressive"))
    free = method.decode([1, 2], Limits(10, frozenset())).tokens
    ended = method.decode([1, 2], Limits(10, frozenset({free[4]})))
    assert ended.tokens == free[: free.index(free[4]) + 1]
    assert ended.finish == "stop"


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    settings = BenchSettings(model="no/such/model", out=str(tmp_path / "taken"))
    for measure in (run_bench, measure_claims):
        with pytest.raises(BadInput, match=r"cannot write to the folder .*taken: "):
            measure(settings)


def test_a_report_names_no_folder(toy: Model, tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text('{"tokens": [1, 2, 3]}')
    settings = BenchSettings(data=str(data), out=str(tmp_path / "out"), max_new_tokens=4, repeats=1)
    run_bench(settings, model=toy)
    for file in ("report.json", "report.html"):
        assert str(tmp_path) not in (tmp_path / "out" / file).read_text()
