"""Bad input is one line and exit code 2, and nothing is loaded for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Run

from ventris.engine.errors import BrokenModel, VentrisError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--draft", "ngrm"), "unknown drafter 'ngrm'; did you mean 'ngram'?"),
        (("--draft", "ngram:max_node=3"), "'ngram' has no option 'max_node'"),
        (("--verifier", "greedy", "--temperature", "1"), "cannot be combined with temperature 1"),
        (("--verifier", "block", "--draft", "ngram", "--temperature", "1"), "the drafter proposes trees"),
        (("--verifier", "greedy,coupled"), "exactly one verifier"),
        (("--max-new-tokens", "0"), "max_new_tokens is 0"),
        (("--top-p", "0"), "top_p is 0"),
        (("--threads", "0"), "threads is 0"),
        (("--memory-budget", "3 parsecs"), "is no size of memory"),
        (("--max-new-tokens", "many"), "--max-new-tokens"),
        (("--no-such-option",), "--no-such-option"),
        (("--config", "no-such-file.yaml"), "no-such-file.yaml"),
    ],
)
def test_wrong_settings_load_nothing(
    run: Run, loads: list[Any], arguments: tuple[str, ...], said: str
) -> None:
    ran = run("generate", "hello", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert ran.err.startswith("ventris: error: ")
    assert ran.err.count("\n") == 1
    assert ran.out == ""
    assert not loads


@pytest.mark.parametrize("key", ["system", "stop", "tools", "tool_choice"])
def test_what_belongs_to_a_request_is_no_setting_of_a_server(
    run: Run, loads: list[Any], tmp_path: Path, key: str
) -> None:
    pytest.importorskip("fastapi")
    (tmp_path / "server.yaml").write_text(f"{key}: [x]\n")
    ran = run("serve", "--config", str(tmp_path / "server.yaml"))
    assert ran.code == 2
    assert ran.err == f"ventris: error: {key} belongs to a request; a server has no such setting\n"
    assert not loads


def test_a_usage_error_names_the_help(run: Run) -> None:
    assert "(see ventris generate --help)" in run("generate", "hello", "--no-such-option").err
    assert run("--no-such-option").code == 2
    assert run("reproduce").code == 2


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*arguments: Any, **named: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BrokenModel("logits are NaN"), 1, "ventris: error: logits are NaN"),
        (MemoryError(), 1, "ventris: error: not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), 1, "not enough memory"),
        (VentrisError("two\nlines"), 2, "ventris: error: two lines"),
        (KeyError("x"), 70, "a bug in ventris: KeyError: 'x'"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_every_error_has_its_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    monkeypatch.setattr("ventris.model.load", failing(error))
    ran = run("hello")
    assert ran.code == code
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_a_bug_shows_its_traceback_on_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ventris.model.load", failing(KeyError("x")))
    monkeypatch.setenv("VENTRIS_DEBUG", "1")
    assert "Traceback" in run("hello").err


def test_a_generation_that_breaks_off_is_no_bad_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(prompt: Any, **settings: Any) -> Any:
        yield SimpleNamespace(text="half an ans", completion=SimpleNamespace())
        raise VentrisError("guide 'x' allows no token")

    monkeypatch.setattr("ventris.model.load", lambda *arguments, **named: SimpleNamespace(stream=stream))
    ran = run("hello")
    assert (ran.code, ran.out) == (1, "half an ans\n")
    assert ran.err == "ventris: error: guide 'x' allows no token\n"
