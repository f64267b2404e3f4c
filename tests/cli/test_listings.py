"""Parts, papers, reproductions, and what ``info`` and ``bench`` say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Run

from ventris.bench.settings import BenchSettings
from ventris.cli.part_cards import brief_card, full_card
from ventris.models.native import NativeUnavailable
from ventris.papers import Reproduction, Row, papers
from ventris.parts import BUILT_IN, available


def test_parts_are_listed_by_kind(run: Run) -> None:
    ran = run("parts")
    assert ran.code == 0
    for kind in BUILT_IN:
        assert kind in ran.out
        assert all(name in ran.out for name in available(kind))
    assert "approximate" in ran.out


@pytest.mark.parametrize("word", ["drafter", "drafters", "Drafter"])
def test_a_kind_shows_options(run: Run, word: str) -> None:
    ran = run("parts", word)
    assert "max_nodes" in ran.out
    assert "1 to 256" in ran.out
    assert "goodput" not in ran.out


def test_one_part_shows_its_options(run: Run) -> None:
    assert "probability that a drafted token is kept" in run("parts", "synthetic").out
    assert run("parts", "policies").code == 0
    assert (run("parts", "ngrm").code, run("parts", "guides").code) == (2, 0)


def test_parts_as_json(run: Run) -> None:
    cards = {(card["kind"], card["name"]): card for card in run("parts", "--json").json}
    assert cards["verifier", "synthetic"]["exact"] is False
    assert cards["drafter", "ngram"]["options"][0]["name"] == "max_nodes"
    assert cards["drafter", "ngram"]["options"][0]["default"] == "15"


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in BUILT_IN.items() for name in names]
)
def test_the_brief_card_says_what_the_class_says(kind: str, name: str) -> None:
    brief, full = brief_card(kind, name), full_card(kind, name)
    assert (brief.summary, brief.exact) == (full.summary, full.exact)
    assert brief.summary


def test_papers_are_listed(run: Run) -> None:
    ran = run("papers")
    assert all(slug in ran.out for slug in papers())
    assert {entry["slug"] for entry in run("papers", "--json").json} == set(papers())


def test_one_paper_in_full(run: Run) -> None:
    entry = papers()["medusa"]
    ran = run("papers", "medusa")
    assert entry.title in ran.out
    assert entry.claim_figure in ran.out
    assert run("papers", "medusa", "--json").json["slug"] == "medusa"


def test_an_unknown_paper_has_a_suggestion(run: Run) -> None:
    for command in ("papers", "reproduce"):
        ran = run(command, "medsa")
        assert (ran.code, "did you mean medusa" in ran.err) == (2, True)


def test_a_planned_paper_says_what_it_waits_for(run: Run) -> None:
    planned = next(slug for slug, entry in papers().items() if entry.state == "planned")
    ran = run("reproduce", planned)
    assert (ran.code, "planned, not built yet" in ran.err) == (2, True)
    assert ran.err.count("\n") == 1


def reproduce_medusa(prompts: int = 3, draft: str = "ngram") -> Reproduction:
    rows = [Row("speed-up", 2.0 * prompts, "tok/s", 3.0), Row("acceptance", 0.7, "", error=0.05)]
    return Reproduction("medusa", "2.2x", rows, 1.5, [f"drafted by {draft}"])


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Medusa can be reproduced."""
    entry = papers()["medusa"].model_copy(update={"state": "works"})
    monkeypatch.setattr("ventris.papers.reproduce.paper", lambda slug: entry, raising=False)
    monkeypatch.setattr("ventris.cli.reproduce.find_paper", lambda slug: entry)
    monkeypatch.setattr(
        "ventris.cli.reproduce.run_reproduction", lambda slug, **options: reproduce_medusa(**options)
    )
    from ventris.papers.reproduction_table import REPRODUCTIONS

    monkeypatch.setitem(REPRODUCTIONS, "medusa", f"{__name__}:reproduce_medusa")


@pytest.mark.usefixtures("works")
def test_a_reproduction_is_shown_beside_the_paper(run: Run) -> None:
    ran = run("reproduce", "medusa", "--option", "prompts=6", "--option", "draft=model:x")
    assert ran.code == 0
    for text in ("paper: 2.2x", "12 tok/s", "4x", "0.7 ± 0.05", "drafted by model:x"):
        assert text in ran.out
    assert run("reproduce", "medusa", "--json").json["ours"][0]["value"] == 6.0


@pytest.mark.usefixtures("works")
@pytest.mark.parametrize(("option", "said"), [("size=3", "no option 'size'"), ("prompts", "KEY=VALUE")])
def test_a_wrong_option_of_a_reproduction(run: Run, option: str, said: str) -> None:
    ran = run("reproduce", "medusa", "--option", option)
    assert (ran.code, said in ran.err) == (2, True)


def test_info_shows_machine_model_and_curve(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_library() -> None:
        raise NativeUnavailable("no C++ compiler found")

    monkeypatch.setattr("ventris.models.native.build.load_library", load_library)
    facts = run("info", "--json").json
    assert facts["machine"]["cores"] >= 1
    assert facts["machine"]["native_kernels"] == "not available: no C++ compiler found"
    assert facts["model"]["family"] == "llama"
    # Counted from the tensors of the file, embeddings once.
    assert facts["model"]["parameters"] == 6272
    assert facts["cost_curve"]["nodes"][0] == 1
    shown = run("info")
    assert all(text in shown.out for text in ("T(n)", "6,272", "cache", "fingerprint"))


def test_bench_reads_its_settings(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[BenchSettings] = []

    def run_bench(settings: BenchSettings, progress: Any) -> str:
        asked.append(settings)
        progress("decoding", 1, 10)
        return "the report"

    monkeypatch.setattr("ventris.bench.runner.run_bench", run_bench)
    monkeypatch.setattr("ventris.bench.report.table.print_report", lambda report, console: print(report))
    ran = run(
        "bench", "--methods", "ngram; copying = ngram:width=1 @ fixed", "--peers", "transformers,llama.cpp",
        "--prompts", "2", "--repeats", "1", "--seed", "4", "--out", str(tmp_path), "-m", "some/model",
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, "the report\n")
    assert asked[0].methods == ["ngram", "copying = ngram:width=1 @ fixed"]
    assert asked[0].peers == ["transformers", "llama.cpp"]
    assert (asked[0].per_category, asked[0].repeats, asked[0].model) == (2, 1, "some/model")
    assert "decoding (1 of 10)" in ran.err


def test_bench_refuses_bad_settings(run: Run) -> None:
    ran = run("bench", "--repeats", "0")
    assert (ran.code, "repeats is 0" in ran.err) == (2, True)


def test_json_has_no_infinities(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from ventris.cli.answer_json import print_json

    print_json({"a": [float("-inf"), 1.0], "b": float("nan")})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.0], "b": None}
