"""Files of requests: what is read, and what is refused by the number of its line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.batch.conftest import Write, chat_line, text_line
from ventris.batch import RequestsFile
from ventris.batch.requests_file import FAULTS_TOLD
from ventris.engine.errors import BadInput


def test_bodies_are_found_again_by_their_place(write: Write) -> None:
    lines = [chat_line("a", "grüße\n"), text_line("b", [1, 2]), chat_line("c")]
    path = write(lines)
    path.write_bytes(b"\n" + path.read_bytes().replace(b"\n", b"\n  \n"))
    requests = RequestsFile(path)
    assert [line.custom_id for line in requests.lines] == ["a", "b", "c"]
    assert [line.number for line in requests.lines] == [2, 4, 6]
    assert [requests.body(line) for line in requests.lines] == [line["body"] for line in lines]


def test_a_last_line_needs_no_line_break(write: Write) -> None:
    path = write([chat_line("a"), chat_line("b")])
    path.write_bytes(path.read_bytes().rstrip())
    assert len(RequestsFile(path).lines) == 2


def changed(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda line: {**line, **fields}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed(custom_id="first"), "line 2: custom_id 'first' is that of line 1 already"),
        (changed(custom_id=""), "line 2: custom_id must be a text"),
        (changed(custom_id=7), "line 2: custom_id must be a text"),
        (changed(custom_id="x" * 1001), "line 2: custom_id must be a text of 1 to 1000"),
        (changed(method="GET"), "line 2: method must be 'POST'"),
        (changed(url="/v1/embeddings"), "line 2: url must be /v1/chat/completions or /v1/completions"),
        (changed(body=[]), "line 2: body must be a JSON object"),
        (changed(priority=1), "line 2: unknown field 'priority'"),
        (lambda line: [line], "line 2: no JSON object"),
    ],
)
def test_bad_lines_are_named(write: Write, change: Callable[..., Any], said: str) -> None:
    path = write([chat_line("first"), change(chat_line("second")), chat_line("third")])
    with pytest.raises(BadInput) as caught:
        RequestsFile(path)
    assert said in str(caught.value)
    assert "line 3" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", [b"{", b'{"custom_id": NaN}', b"\xff\xfe", b'"\\ud800"'])
def test_what_is_no_json_is_named(write: Write, text: bytes) -> None:
    path = write([chat_line("a")])
    path.write_bytes(path.read_bytes() + text)
    with pytest.raises(BadInput, match="line 2: no JSON"):
        RequestsFile(path)


def test_many_faults_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text("x\n" * (FAULTS_TOLD + 5))
    with pytest.raises(BadInput, match=rf"line {FAULTS_TOLD}: [^;]*; and 5 more$"):
        RequestsFile(path)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        RequestsFile(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(BadInput, match="no requests"):
        RequestsFile(tmp_path / "empty.jsonl")


def test_a_file_that_changes_under_the_job_is_noticed(write: Write) -> None:
    path = write([chat_line("a"), chat_line("b")])
    requests = RequestsFile(path)
    path.write_text(json.dumps(chat_line("other", "a longer text than before")) + "\n")
    with pytest.raises(BadInput, match="has changed"):
        requests.body(requests.lines[1])
