"""``ventris bench serve`` on the tiny model: it measures what it says, and a soak finds what is wrong."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.cli.tiny_model import write_tiny_model
from tests.serve.running import NAME, Running
from ventris.bench.serving import measure
from ventris.bench.serving.client import Client, RequestFailed, events
from ventris.bench.serving.load import run_load
from ventris.bench.serving.settings import ServingSettings
from ventris.bench.serving.soak import SoakReport, levels, run_soak
from ventris.cli.main import main
from ventris.model import Model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("bench") / "tiny")


def silent(what: str, done: int, total: int) -> None:
    """No progress shown."""


def test_a_load_counts_what_the_server_counts(server: Running) -> None:
    client = Client(server.url)
    body = {"model": NAME, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "temperature": 0}
    run = run_load("ventris", client, [body | {"ventris": {"ignore_eos": True}}] * 6, streams=3)
    assert run.tokens == 30
    assert len(run.first_seconds) == len(run.token_seconds) == 6
    assert 0 < max(run.first_seconds) <= run.seconds
    assert run.rate == pytest.approx(30 / run.seconds)
    with pytest.raises(RequestFailed, match="model_not_found"):
        client.stream(body | {"model": "other"})
    with pytest.raises(RequestFailed, match="no address"):
        Client("nowhere")


SMALL = ["--requests", "2", "--repeats", "1", "--max-tokens", "4", "--stream", "2", "--json"]


@pytest.fixture
def measured(server: Running, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command measures the server of the tests; a process of its own takes long to start."""
    monkeypatch.setattr(measure, "served", lambda arguments: nullcontext(server))
    monkeypatch.setattr(measure, "_model", lambda settings: model)


@pytest.mark.usefixtures("measured")
def test_the_report_has_every_load_and_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "serve", *SMALL]) == 0
    report = json.loads(capsys.readouterr().out)
    loads = {(run["streams"], run["draft"]) for run in report["loads"]}
    assert loads == {(1, "none"), (1, "ngram"), (2, "none"), (2, "ngram")}
    assert all(run["tokens"] == 8 for run in report["loads"])
    titles = [ratio["title"] for ratio in report["ratios"]]
    assert len(titles) == 4
    assert all(ratio["value"] > 0 for ratio in report["ratios"])


@pytest.mark.usefixtures("measured")
def test_another_server_gets_the_same_load(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    # Ventris once more. Token 0 ends a text; without it, answers are as long as on the other side.
    peer = ["--peer-url", server.url, "--peer-model", NAME, "--peer-logit-bias", "0=-100"]
    assert main(["bench", "serve", *SMALL, *peer, "--draft", "none", "--without-overhead"]) == 0
    report = json.loads(capsys.readouterr().out)
    loads = [(run["server"], run["streams"]) for run in report["loads"]]
    assert sorted(loads) == [("peer", 1), ("peer", 2), ("ventris", 1), ("ventris", 2)]
    assert all(run["tokens"] == 8 for run in report["loads"])
    titles = [ratio["title"] for ratio in report["ratios"]]
    assert "tokens/s, 2 at a time, against the peer" in titles
    assert "p95 time to first token, 2 at a time, against the peer" in titles


@pytest.mark.long
def test_the_command_starts_a_server_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VENTRIS_CACHE", str(folder.parent / "cache"))
    given = ["--model", str(folder), "--dtype", "float32", "--kernels", "torch", "--threads", "1"]
    assert main(["bench", "serve", *given, *SMALL]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["loads"]) == 4
    assert len(report["ratios"]) == 4


def test_a_soak_report_names_what_must_not_be() -> None:
    fine = SoakReport(
        seconds=1, did={}, checked=10, wrong=0, problems=[], stuck=0, warm_bytes=100, peak_bytes=104
    )
    assert fine.failures == []
    bad = fine.model_copy(update={"wrong": 1, "stuck": 2, "peak_bytes": 110, "problems": ["leave: OSError"]})
    assert len(bad.failures) == 4
    assert "memory grew by 10.0 %" in bad.failures[-1]


def test_memory_is_compared_with_its_level_after_loading() -> None:
    held = [(0.0, 50), (0.05, 200), (0.1, 100), (0.15, 104), (0.19, 101), (0.2, 103), (0.7, 107), (1.0, 90)]
    assert levels(held) == (104, 107)
    assert levels([]) == (0, 0)


@pytest.mark.long
def test_a_short_soak(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENTRIS_CACHE", str(folder.parent / "cache"))
    settings = ServingSettings(model=str(folder), kernels="torch", threads=1, soak=0.5, clients=4)
    report = run_soak(settings, silent)
    assert report.problems == []
    assert (report.wrong, report.stuck) == (0, 0)
    assert report.checked > 10
    # So short a time says little of memory; the long soak has the bound.
    assert report.growth < 0.5


def test_events_are_whole_however_the_stream_is_cut() -> None:
    stream = b'data: {"n": 1}\n\n: a comment\n\ndata: {"n": 2}\n\ndata: [DONE]\n\n'
    for size in range(1, len(stream) + 1):
        came = [(float(at), stream[at : at + size]) for at in range(0, len(stream), size)]
        found = list(events(came))
        assert [event["n"] for _, event in found] == [1, 2]
        # An event is there once the part with the end of its line is.
        assert [moment for moment, _ in found] == [14 // size * size, 43 // size * size]
    with pytest.raises(RequestFailed, match="broke off"):
        list(events([(0.0, stream[:30])]))
