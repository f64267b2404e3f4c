"""The plugin for the ``llm`` command, in its own program."""

from __future__ import annotations

import importlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llm", reason="llm is not installed; pip install 'ventris[llm]'")

from ventris.integrations import llm_plugin
from ventris.model import Model

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def ours(folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(llm_plugin, "_loaded", lambda *_: model)
    return llm_plugin.VentrisModel()


def test_the_entry_point_leads_to_the_plugin() -> None:
    points = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["entry-points"]["llm"]
    assert importlib.import_module(points["ventris"]) is llm_plugin
    found: list[Any] = []
    llm_plugin.register_models(found.append)
    assert [model.model_id for model in found] == ["ventris"]


def test_an_answer_comes_in_pieces(ours: Any, model: Model) -> None:
    response = ours.prompt("hello", max_new_tokens=20, draft="ngram")
    pieces = list(response)
    expected = model.generate("hello", max_new_tokens=20)
    assert "".join(pieces) == expected.text
    assert len(pieces) > 1
    assert response.usage().input == len(expected.prompt)
    assert response.usage().output == len(expected.tokens)
    assert response.json()["guarantee"] == expected.guarantee.statement


def test_a_conversation_remembers(ours: Any, model: Model) -> None:
    talk = ours.conversation()
    first = talk.prompt("hello", system="be brief", max_new_tokens=6).text()
    second = talk.prompt("more", max_new_tokens=6).text()
    said = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "more"},
    ]
    assert second == model.generate(said, max_new_tokens=6).text


def test_a_schema_is_kept(ours: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"enum": ["yes", "no"]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    answer = ours.prompt("well?", schema=schema, max_new_tokens=60).text()
    assert json.loads(answer)["answer"] in ("yes", "no")


def test_wrong_settings_are_one_line(ours: Any) -> None:
    with pytest.raises(Exception, match="temperature is -1"):
        ours.prompt("hello", temperature=-1.0).text()
