"""Batch jobs in this process: the answers, their order, and what another run makes of what is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.batch.conftest import NAME, Write, chat_line, text_line
from ventris.batch import BatchJob, Here, Outcome, RequestsFile, run_batch
from ventris.engine.errors import BadInput
from ventris.model import Model
from ventris.serve.service import Service
from ventris.serve.settings import ServerSettings

Run = Callable[..., Outcome]

MIXED = [
    chat_line("greedy", "question one", max_tokens=30),
    text_line("two prompts", ["hello", "other"]),
    chat_line("seeded", temperature=1.0, seed=5, n=2),
    chat_line("no seed", temperature=1.0, max_tokens=30),
    chat_line("long", "x " * 50, max_tokens=3),
    chat_line("drafted", "abc " * 20, max_tokens=30, ventris={"draft": "ngram", "policy": "fixed"}),
    chat_line("choice", ventris={"guides": [{"choice": {"options": ["yes", "no"]}}]}),
    chat_line("unknown field", colour="red"),
    chat_line("wrong model") | {"body": {**chat_line("")["body"], "model": "gpt-9"}},
    chat_line("a stream", stream=True),
    chat_line("a trace", ventris={"trace": True}),
    chat_line("too long", max_tokens=8, ventris={"guides": [{"regex": {"pattern": "("}}]}),
]
FAULTY = {"unknown field": 400, "wrong model": 404, "a stream": 400, "a trace": 400, "too long": 400}


@pytest.fixture
def run(model: Model, tmp_path: Path) -> Run:
    def call(requests: Path, output: Path | None = None, **settings: Any) -> Outcome:
        limits = ServerSettings(max_batch=4, compile_seconds=60, max_streams=1000, **settings)
        job = BatchJob(RequestsFile(requests), output or tmp_path / "answers.jsonl", {"model": NAME})
        return run_batch(Here(Service(model, NAME, limits)), job, lambda what, done, total: None)

    return call


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_line_is_answered_in_order(run: Run, write: Write, tmp_path: Path, model: Model) -> None:
    outcome = run(write(MIXED))
    assert outcome == Outcome(len(MIXED) - len(FAULTY), len(FAULTY), 0)
    answers = read(tmp_path / "answers.jsonl")
    assert [answer["custom_id"] for answer in answers] == [line["custom_id"] for line in MIXED]
    assert len({answer["id"] for answer in answers}) == len(MIXED)
    for answer in answers:
        assert set(answer) == {"id", "custom_id", "response", "error"}
        assert set(answer["response"]) == {"status_code", "request_id", "body"}
        assert answer["response"]["status_code"] == FAULTY.get(answer["custom_id"], 200)
    bodies = {answer["custom_id"]: answer["response"]["body"] for answer in answers}
    said = [{"role": "user", "content": "question one"}]
    assert (
        bodies["greedy"]["choices"][0]["message"]["content"] == model.generate(said, max_new_tokens=30).text
    )
    for choice, text in zip(bodies["two prompts"]["choices"], ["hello", "other"], strict=True):
        assert choice["text"] == model.generate(text, raw=True, max_new_tokens=8).text
    hello = [{"role": "user", "content": "hello"}]
    for k, choice in enumerate(bodies["seeded"]["choices"]):
        expected = model.generate(hello, temperature=1.0, seed=5 + k, max_new_tokens=8).text
        assert choice["message"]["content"] == expected
    assert bodies["choice"]["choices"][0]["message"]["content"] in ("yes", "no")
    assert bodies["unknown field"]["error"]["param"] == "colour"
    assert bodies["wrong model"]["error"]["code"] == "model_not_found"
    assert bodies["greedy"]["usage"]["completion_tokens"] == 30
    assert not (tmp_path / "answers.jsonl.journal").exists()


def test_a_second_run_writes_the_same_bytes(run: Run, write: Write, tmp_path: Path) -> None:
    path = write(MIXED)
    run(path, tmp_path / "one.jsonl")
    # Another width: other requests stand beside each one.
    run(path, tmp_path / "two.jsonl", chunk=16)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_log_probabilities_are_the_same_up_to_rounding(run: Run, write: Write, tmp_path: Path) -> None:
    path = write([text_line("a", "hello", logprobs=1), text_line("b", "x" * 40, logprobs=1)])
    found = []
    for chunk in (64, 16):
        output = tmp_path / f"{chunk}.jsonl"
        run(path, output, chunk=chunk)
        scores = [line["response"]["body"]["choices"][0]["logprobs"] for line in read(output)]
        found.append([value for entry in scores for value in entry["token_logprobs"]])
    assert len(found[0]) >= 2
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_only_what_is_missing_is_answered(
    run: Run, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ventris.batch import here as module

    path = write(MIXED)
    run(path, tmp_path / "whole.jsonl")
    asked: list[str] = []
    answer_line = module.answer_line

    async def counted(service: Any, line: Any, *rest: Any) -> Any:
        if len(asked) == 5:
            raise RuntimeError("a bug")
        asked.append(line.custom_id)
        return await answer_line(service, line, *rest)

    monkeypatch.setattr(module, "answer_line", counted)
    with pytest.raises(RuntimeError, match="a bug"):
        run(path)
    assert not (tmp_path / "answers.jsonl").exists()
    journal = tmp_path / "answers.jsonl.journal"
    kept = len(journal.read_bytes().splitlines()) - 1
    # A kill in the middle of writing leaves half a line.
    with journal.open("ab") as file:
        file.write(b'{"line": 3, "answer": {"id"')
    first, asked[:] = list(asked), []
    monkeypatch.setattr(module, "answer_line", answer_line)
    outcome = run(path)
    assert outcome.kept == kept <= len(first)
    assert (tmp_path / "answers.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not journal.exists()


def test_a_journal_of_another_job_is_refused_and_left_alone(run: Run, write: Write, tmp_path: Path) -> None:
    journal = tmp_path / "answers.jsonl.journal"
    for text in ('{"requests": "other"}\n', "my diary, without a line break", "my diary\n"):
        journal.write_text(text)
        with pytest.raises(BadInput, match="journal"):
            run(write([chat_line("a")]))
        assert journal.read_text() == text


def test_two_processes_do_not_share_a_job(write: Write, tmp_path: Path) -> None:
    job = BatchJob(RequestsFile(write([chat_line("a")])), tmp_path / "answers.jsonl", {})
    held = job.open_journal("model")
    with pytest.raises(BadInput, match="in use"):
        job.open_journal("model")
    held.close()
    job.open_journal("model").close()


def test_a_finished_job_is_known_and_foreign_answers_are_kept(run: Run, write: Write, tmp_path: Path) -> None:
    path, output = write([chat_line("a"), chat_line("b")]), tmp_path / "answers.jsonl"
    settings = {"model": NAME}
    assert not BatchJob(RequestsFile(path), output, settings).finished()
    run(path)
    assert BatchJob(RequestsFile(path), output, settings).finished()
    changed = write([chat_line("a"), chat_line("b", "bye")], "changed.jsonl")
    turned = write([chat_line("b"), chat_line("a")], "turned.jsonl")
    for other in (
        BatchJob(RequestsFile(path), output, {"model": "another"}),
        BatchJob(RequestsFile(changed), output, settings),
        BatchJob(RequestsFile(turned), output, settings),
    ):
        with pytest.raises(BadInput, match="is there already"):
            other.finished()
    output.write_text("something else\n")
    with pytest.raises(BadInput, match="is there already"):
        BatchJob(RequestsFile(path), output, settings).finished()


def test_answers_that_cannot_be_written_are_one_line(run: Run, write: Write, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot use the journal"):
        run(write([chat_line("a")]), tmp_path / "file" / "answers.jsonl")
