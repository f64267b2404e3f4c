"""``ventris bench structured`` as a person runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

CASES = [
    {
        "name": "whole",
        "schema": {"type": "integer"},
        "tests": [{"data": 3, "valid": True}, {"data": "a", "valid": False}],
    },
    {"name": "far", "schema": {"$ref": "http://192.0.2.1/x"}, "tests": []},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(map(json.dumps, CASES)))
    return path


def test_masks_are_measured_and_all_files_are_whole(
    run: Run, data: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    out, page, journal = tmp_path / "r.json", tmp_path / "r.html", tmp_path / "j.jsonl"
    command = ("bench", "structured", "--data", str(data), "--model", str(tiny_folder))
    files = ("--json", str(out), "--html", str(page), "--journal", str(journal), "--back-end", "ventris")
    ran = run(*command, *files)
    assert ran.code == 0, ran.err
    for word in ("Coverage", "50.0 %", "Instances", "between masks", "$ref is remote"):
        assert word in ran.out
    report = json.loads(out.read_text())
    assert [result["status"] for result in report["results"]] == ["accepted", "refused"]
    assert report["findings"]["figures"]["ventris"]["let_through"] == 0
    assert str(tmp_path) not in out.read_text() + page.read_text() + journal.read_text()
    assert "<script" not in page.read_text()
    assert "Structured output: mask" in page.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cases.jsonl", "j.jsonl", "r.html", "r.json"]
    again = run(*command, *files)
    assert again.code == 0
    assert json.loads(out.read_text())["results"] == report["results"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--protocol", "masks"), "protocol is 'masks'"),
        (("--back-end", "none"), "no back end 'none'"),
        (("--data", "nowhere.jsonl"), "cannot read the data"),
        (("--protocol", "suite"), "--data"),
        (("--limit", "0"), "limit is 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run: Run, arguments: tuple[str, ...], said: str) -> None:
    ran = run("bench", "structured", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_bench_itself_still_runs_without_a_command(run: Run) -> None:
    ran = run("bench", "--method", "no such thing")
    assert ran.code == 2
    assert "no such thing" in ran.err
