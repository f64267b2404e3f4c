"""``ventris chat`` with messages from a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ran, Run
from test_generate import FakeStdin

from ventris.model import Model

Talk = Callable[..., Ran]


@pytest.fixture
def talk(run: Run, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Chat with the lines given, ten tokens an answer."""

    def call(*lines: str, options: tuple[str, ...] = ()) -> Ran:
        monkeypatch.setattr(sys, "stdin", FakeStdin("".join(f"{line}\n" for line in lines)))
        return run("chat", "--max-new-tokens", "10", "--ignore-eos", *options)

    return call


def test_every_line_is_answered_in_turn(talk: Talk, tiny_model: Model) -> None:
    chat = tiny_model.chat(max_new_tokens=10, ignore_eos=True)
    expected = [chat.say("hello").text, chat.say("again").text]
    ran = talk("hello", "", "again")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "".join(f"{text}\n" for text in expected)


def test_quit_leaves(talk: Talk) -> None:
    assert talk("/quit", "hello").out == ""


def test_reset_forgets(talk: Talk) -> None:
    first, second = talk("hello", "/reset", "hello").out.splitlines()
    assert first == second


def test_the_conversation_is_saved(talk: Talk, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    ran = talk("/system Be brief.", "hello", f"/save {file}")
    assert ran.code == 0
    saved = json.loads(file.read_text())
    assert [message["role"] for message in saved["messages"]] == ["system", "user", "assistant"]
    assert saved["messages"][2]["content"] + "\n" == ran.out
    assert [path.name for path in tmp_path.iterdir()] == ["chat.json"]


def test_the_system_message_changes_the_answer(talk: Talk) -> None:
    given = talk("hello", options=("--system", "Be brief.")).out
    assert given != talk("hello").out
    assert talk("/system Be brief.", "hello").out == given
    assert talk("/system", "hello", options=("--system", "Be brief.")).out == talk("hello").out


def test_the_drafter_can_be_switched(talk: Talk) -> None:
    ran = talk(
        "hello", "/draft ngram:max_nodes=4", "/reset", "hello", "/stats", options=("--policy", "fixed")
    )
    first, second = ran.out.splitlines()
    assert first == second
    assert "drafting with ngram:max_nodes=4" in ran.err
    assert "prompt tokens" in ran.err
    assert "exact" in ran.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/rest", "did you mean /reset?"),
        ("/draft ngrm", "did you mean 'ngram'?"),
        ("/draft", "write /draft NAME"),
        ("/stats", "no answer has been finished"),
        ("/save", "write /save FILE.json"),
        ("/save /dev/null/chat.json", "cannot write"),
    ],
)
def test_a_wrong_command_ends_a_script(talk: Talk, line: str, said: str) -> None:
    ran = talk(line, "hello")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_help_lists_the_commands(talk: Talk) -> None:
    ran = talk("/help")
    assert all(name in ran.err for name in ("/reset", "/system", "/stats", "/draft", "/save", "/quit"))
