"""Generated schemas, and the target's documents of them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import typer
from typer.testing import CliRunner

from ventris.cli import train
from ventris.engine.errors import BadInput
from ventris.guide import JsonSchema
from ventris.train.form_tasks import TOPICS, WORDINGS, form_tasks, write_documents
from ventris.train.run import load_target
from ventris.train.settings import FormSettings
from ventris.train.texts import read_prompts


def test_tasks_differ_and_a_seed_names_them():
    tasks = list(form_tasks(120))
    assert len({task.prompt for task in tasks}) == 120
    assert tasks == list(form_tasks(120))
    assert tasks != list(form_tasks(120, seed=1))
    for task in tasks:
        jsonschema.Draft202012Validator.check_schema(task.schema)
        assert set(task.schema["required"]) <= set(task.schema["properties"])
    assert {task.schema.get("title") for task in tasks} > {None, "Order", "Person"}


def test_every_topic_wording_and_kind_comes_up_and_the_mask_keeps_it():
    tasks = list(form_tasks(400))
    for topic, fields in TOPICS.items():
        assert any(set(task.schema["properties"]) <= set(fields) for task in tasks), topic
    for wording in WORDINGS:
        start = wording.partition("{")[0]
        assert any(task.prompt.startswith(start) for task in tasks)
    for task in tasks[:60]:
        assert JsonSchema(task.schema, strict=True).enforcement.enforced


def test_documents_are_valid_and_the_same_whatever_the_batch(tiny_folder: Path, tmp_path: Path):
    tasks = list(form_tasks(12))
    written = []
    for batch in (1, 5):
        out = tmp_path / f"forms-{batch}.jsonl"
        settings = FormSettings(
            model=str(tiny_folder),
            device="cpu",
            threads=1,
            out=str(out),
            max_new_tokens=400,
            answer_batch=batch,
        )
        count = write_documents(load_target(settings), tasks, settings)
        written.append(read_prompts(out))
        assert len(written[-1]) == count > 0
    assert written[0] == written[1]
    schemas = {task.prompt: task.schema for task in tasks}
    for record in written[0]:
        jsonschema.validate(json.loads(record.answer), schemas[record.content])
        assert record.answered


def test_documents_that_are_too_long_are_left_out(tiny_folder: Path, tmp_path: Path):
    out = tmp_path / "forms.jsonl"
    settings = FormSettings(model=str(tiny_folder), device="cpu", threads=1, out=str(out), max_new_tokens=2)
    with pytest.raises(
        BadInput, match="no document was finished within 2 tokens; raise max_new_tokens or count"
    ):
        write_documents(load_target(settings), list(form_tasks(4)), settings)
    assert not out.exists()


def test_the_command_writes_what_training_reads(tiny_folder: Path, tmp_path: Path):
    out = tmp_path / "forms.jsonl"
    app = typer.Typer()
    app.callback()(lambda: None)
    train.register(app)
    words = ["train", "forms", "--model", str(tiny_folder), "--out", str(out), "--count", "6"]
    result = CliRunner().invoke(app, [*words, "--max-new-tokens", "400", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert f"{len(read_prompts(out))} of 6 documents were finished" in result.output
    assert any(command is train.forms for command, _ in train.METHODS)
