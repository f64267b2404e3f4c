"""The options that say what an answer looks like."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
from conftest import Run

SCHEMA = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
SCHEMA["additionalProperties"] = False


@pytest.mark.parametrize("command", [("generate", "hello"), ("hello",)])
def test_a_schema_in_short(run: Run, command: tuple[str, ...]) -> None:
    answer = run(*command, "--schema", "ok bool, size S|M, n? 1|2", "--json").json
    assert answer["valid"]
    found = json.loads(answer["text"])
    assert list(found)[:2] == ["ok", "size"]
    assert isinstance(found["ok"], bool)
    assert found["size"] in "SM"


def test_a_json_schema_as_text_file_and_setting(run: Run, tmp_path: Path) -> None:
    file, settings = tmp_path / "schema.json", tmp_path / "settings.yaml"
    file.write_text(json.dumps(SCHEMA))
    settings.write_text(json.dumps({"json-schema": SCHEMA}))
    texts = {
        run("hello", "--json-schema", json.dumps(SCHEMA)).out,
        run("hello", "--json-schema", str(file)).out,
        run("hello", "--config", str(settings)).out,
        run("hello", "--guide", f"json-schema:{file}").out,
    }
    assert len(texts) == 1
    jsonschema.validate(json.loads(texts.pop()), SCHEMA)


def test_tools_from_a_file_are_called(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "tools.json"
    switch = {"type": "object", "properties": {"on": {"const": True}}, "required": ["on"]}
    file.write_text(json.dumps([{"name": "lamp", "parameters": {**switch, "additionalProperties": False}}]))
    asked = ("hello", "--tools", str(file), "--tool-choice", "lamp", "--json")
    answer = run(*asked).json
    assert answer["tool_calls"][0] == {"name": "lamp", "arguments": {"on": True}}
    refused = run("hello", "--tools", "no.json")
    assert refused.code == 2
    assert "neither a file nor JSON" in refused.err


def test_a_regex_a_grammar_and_choices(run: Run, tmp_path: Path) -> None:
    assert re.fullmatch(r"[a-c]{3},x\n", run("hello", "--regex", "[a-c]{3},x").out)
    file = tmp_path / "sum.lark"
    file.write_text('start: "1" "+" "1" | "2"\n')
    assert run("hello", "--grammar", str(file)).out in ("1+1\n", "2\n")
    assert run("hello", "--grammar", 'root ::= "ab"').out == "ab\n"
    assert run("hello", "--choice", "red,green", "--choice", '"a, b"').out in ("red\n", "green\n", "a, b\n")


def test_a_form_goes_with_other_guides(run: Run) -> None:
    out = run("hello", "--choice", "red,green,blue", "--guide", "words:exclude=red", "--guide", "words:e").out
    assert out in ("green\n", "blue\n")


def test_a_chat_keeps_the_form(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\nand again\n"))
    answers = run("chat", "--choice", "yes,no").out.split()
    assert len(answers) == 2
    assert set(answers) <= {"yes", "no"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--json-schema", "no.json"), "--json-schema: 'no.json' is neither a file nor a JSON schema"),
        (("--json-schema", "{"), "--json-schema: the schema is no JSON"),
        (("--schema", "a,,b"), "--schema: the schema 'a,,b' has ',' at character 3"),
        (("--grammar", "no.lark"), "--grammar: 'no.lark' is neither a file nor a grammar"),
        (("--regex", "a", "--schema", "b"), "--schema and --regex both say what the answer looks like"),
        (("--choice", ""), "--choice: a choice needs at least one text"),
        (("--schema", ""), "--schema: the schema ''"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    run: Run, loads: list[object], arguments: tuple[str, ...], said: str
) -> None:
    ran = run("hello", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert not loads


def test_what_does_not_compile_names_its_guide(run: Run) -> None:
    ran = run("hello", "--regex", "(")
    assert (ran.code, "'regex'" in ran.err, ran.err.count("\n")) == (2, True, 1)
