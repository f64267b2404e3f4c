from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from bench_runs import made_report, made_run
from rich.console import Console

from ventris.bench import Report, print_report, read_report, write_report
from ventris.bench.record import Entrant
from ventris.bench.report.charts import nice_ticks
from ventris.bench.report.files import to_json
from ventris.bench.report.page import render_page
from ventris.engine.errors import BadInput


def test_a_stored_report_gives_the_same_page_again(toy_report: Report, tmp_path: Path) -> None:
    data, page = write_report(toy_report, tmp_path / "out")
    again = read_report(data)
    assert again == toy_report
    assert render_page(again) == page.read_text(encoding="utf-8")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]


def test_json_holds_runs_and_figures(toy_report: Report) -> None:
    stored = json.loads(to_json(toy_report))
    assert len(stored["runs"]) == 3 * 3 * 2
    cells = {(cell["contestant"], cell["category"]) for cell in stored["summary"]["cells"]}
    assert ("always", "overall") in cells


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.used: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.used.append((tag, dict(attrs)))
        if tag not in ("meta", "line", "circle", "rect", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "line", "circle", "rect", "polyline"):
            assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(toy_report: Report) -> None:
    page = render_page(toy_report)
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert not {tag for tag, _ in tags.used} & {"script", "link", "img", "iframe"}
    assert not any(name in ("src", "href") for _, attributes in tags.used for name in attributes)
    assert "http" not in page
    assert "url(" not in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_names_every_method_peer_and_category(toy_report: Report) -> None:
    page = render_page(toy_report)
    for entrant in toy_report.entrants:
        assert f"<td>{entrant.name}</td>" in page
    for category in ("writing", "coding", "rag", "multi-turn conversation", "overall"):
        assert f"<td>{category}</td>" in page
    assert page.count("<svg") == 4
    assert "the model has no files" in page


def test_text_from_outside_cannot_become_markup() -> None:
    name = "<b>&"
    plain = Entrant(name=name, kind="method", plain=name, statement="<script>")
    report = made_report([made_run(name, "x", 0, 10.0, category="<i>")], [plain])
    report.warnings.append("<u>")
    page = render_page(report)
    assert not re.search(r"<(b|i|u|script)>", page)


def test_the_terminal_shows_warnings_and_no_false_difference() -> None:
    plain = Entrant(name="autoregressive", kind="method", plain="autoregressive")
    method = Entrant(name="ngram", kind="method", plain="autoregressive")
    runs = []
    for index, factor in enumerate((0.9, 1.1, 1.05, 0.95)):
        runs += [
            made_run("autoregressive", f"q{index}", 0, 10.0),
            made_run("ngram", f"q{index}", 0, 10.0 * factor),
        ]
    report = made_report(runs, [plain, method])
    report.warnings.append("another process was busy")
    console = Console(file=io.StringIO(), width=100)
    print_report(report, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "warning: another process was busy" in shown
    assert "no difference" in shown
    assert "T(8)/T(1) = 1.20" in shown
    assert "no method was found to be faster" in " ".join(shown.split())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', "\x00"])
def test_what_is_no_report_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "report.json"
    file.write_text(text)
    with pytest.raises(BadInput) as caught:
        read_report(file)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named(toy_report: Report, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(BadInput, match="cannot write the report"):
        write_report(toy_report, tmp_path / "taken")


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.95, 2.1, [0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2])],
)
def test_ticks_are_round_and_reach_around_the_data(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)
