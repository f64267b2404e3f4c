"""``ventris study`` on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Run

SMALL = (
    "--threads",
    "1",
    "--small",
    "exit:1",
    "--max-new-tokens",
    "8",
    "--method",
    "oracle",
    "--rate",
    "0.3",
)


@pytest.fixture
def questions(tmp_path: Path) -> str:
    file = tmp_path / "questions.jsonl"
    lines = [
        {"concepts": [word, "and", word[::-1]], "id": word} for word in ("one", "two", "six", "ten", "five")
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    return str(file)


def test_a_study_is_printed_and_written(run: Run, questions: str, tmp_path: Path) -> None:
    done = run(
        "study", *SMALL, "--data", questions, "--template", "With {concepts}:", "--out", str(tmp_path / "out")
    )
    assert done.code == 0
    assert "exit:1" in done.out
    assert "law, oracle: a law of three parameters needs at least 4" in done.out
    assert "the report is in" in done.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html",
        "report.json",
        "tokens.npz",
    }


def test_a_study_as_json(run: Run, questions: str) -> None:
    done = run(
        "study",
        *SMALL,
        "--data",
        questions,
        "--template",
        "With {concepts}:",
        "--json",
        "--methods",
        "mixture",
    )
    assert done.code == 0
    assert [pair["method"] for pair in done.json["pairs"]] == ["oracle", "mixture"]
    assert done.json["settings"]["template"] == "With {concepts}:"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--small", "exit:2"), "exit:N with N from 1 to 1"),
        (("--small", "exit:1", "--small", "exit:1"), "small names 'exit:1' twice"),
        (("--method", "guess"), "methods.0 is 'guess'"),
        (("--rate", "2"), "a rate of calls is 2"),
        (("--rate", "often"), "valid number"),
        (("--tuned", "exit:1"), "method proxy is not asked for"),
        (("--template", "{concept}"), "does not fit line 1 of questions.jsonl"),
        (("--template", "{concepts.secret}"), "does not fit line 1"),
        (("--data", "nowhere.jsonl"), "cannot read the prompts in nowhere.jsonl"),
        (("--category", "sums"), "there is no category 'sums'"),
    ],
)
def test_bad_input_is_one_line(run: Run, questions: str, given: tuple[str, ...], said: str) -> None:
    done = run("study", "--data", questions, "--template", "{id}", "--small", "exit:1", *given)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


def test_reproduce_takes_the_settings_of_the_study(run: Run, questions: str) -> None:
    options = {
        "small": "[exit:1]",
        "methods": "[oracle]",
        "rates": "[]",
        "max_new_tokens": "8",
        "data": questions,
    }
    given = [f"--option={key}={value}" for key, value in options.items()]
    done = run("reproduce", "fs-gen", *given, "--option=template='{id}'", "--json")
    assert done.code == 0, done.err
    assert done.json["ours"][0]["name"] == "needed by exit:1 (1.59 times smaller), oracle"
    wrong = run("reproduce", "fs-gen", "--option=colour=red")
    assert wrong.code == 2
    assert "no setting 'colour'; see ventris study --help" in wrong.err
