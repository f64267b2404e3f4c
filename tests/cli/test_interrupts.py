"""Ctrl-C, wherever it hits, is neither lost nor does it spoil what follows."""

from __future__ import annotations

import signal
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from conftest import SOURCES, Ran, Run
from test_generate import FakeStdin

from ventris.cli.chat import Conversation
from ventris.cli.interrupts import remember_interrupts, take_interrupt
from ventris.engine.batch import Engine, Event
from ventris.model import Model

Talk = Callable[..., Ran]


class Terminal(FakeStdin):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def remembered() -> Iterator[None]:
    """SIGINT as the entry point sets it up, also where the tests run in the background and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    remember_interrupts()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        assert not take_interrupt(), "a Ctrl-C was left unanswered"


@pytest.fixture
def talk(run: Run, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Chat on a terminal; returns what was printed."""

    def call(*lines: str) -> Ran:
        typed = iter(lines)

        def read(prompt: str) -> str:
            try:
                return next(typed)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr(sys, "stdin", Terminal(""))
        monkeypatch.setattr("builtins.input", read)
        return run("chat", "--max-new-tokens", "4", "--ignore-eos")

    return call


class InterruptAt:
    """A trace function that raises KeyboardInterrupt at the n-th line of Ventris that begins to run."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        inside = code.co_filename.startswith(str(SOURCES / "ventris")) and code.co_name != "__del__"
        return self.count if inside else None

    def count(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return self.count


def interrupted_at(line: int, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Chat, with the interrupt in the first turn."""
    turn, tracing = Conversation._turn, sys.gettrace()

    def traced(self: Conversation, text: str) -> None:
        monkeypatch.setattr(Conversation, "_turn", turn)
        sys.settrace(InterruptAt(line))
        try:
            turn(self, text)
        finally:
            sys.settrace(tracing)

    monkeypatch.setattr(Conversation, "_turn", traced)
    return talk("hello", "/reset", "again")


def test_an_interrupt_anywhere_in_an_answer_leaves_a_chat_that_goes_on(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = talk("again").out.splitlines()[0]
    hits = 0
    for line in range(0, 10_000, 53):
        ran = interrupted_at(line, talk, monkeypatch)
        assert ran.code == 0
        # The line of an answer that was broken off while its last piece was printed may still be open.
        assert ran.out.splitlines()[-2].endswith(expected), f"after an interrupt at line {line}"
        if "interrupted" not in ran.err:
            break
        hits += 1
    assert hits > 30


class Dropped:
    """Something that is freed."""


def swallowed_interrupt() -> None:
    """A Ctrl-C in the callback of a weak reference, where Python drops the exception with a note."""
    dropped = Dropped()
    reference = weakref.ref(dropped, lambda reference: signal.raise_signal(signal.SIGINT))
    del dropped
    assert reference() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("remembered")
def test_an_interrupt_that_an_import_swallows_still_ends_the_program(
    run: Run, monkeypatch: pytest.MonkeyPatch, tiny_model: Model
) -> None:
    def load(*arguments: Any, **named: Any) -> Model:
        swallowed_interrupt()
        return tiny_model

    monkeypatch.setattr("ventris.model.load", load)
    ran = run("hello")
    assert (ran.code, ran.out, ran.err) == (130, "", "interrupted\n")


@pytest.mark.usefixtures("remembered")
def test_an_interrupt_that_a_library_turns_into_its_own_error_is_an_interrupt(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*arguments: Any, **named: Any) -> Model:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError("cannot be set up") from error
        raise AssertionError("there was no interrupt")

    monkeypatch.setattr("ventris.model.load", load)
    ran = run("hello")
    assert (ran.code, ran.out, ran.err) == (130, "", "interrupted\n")


@pytest.fixture
def interrupt_in_the_third_step(remembered: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the engine's third step the moment of a Ctrl-C."""

    def prepare(interrupt: Callable[[], None]) -> None:
        steps, step = 0, Engine.step

        def interrupted(self: Engine) -> list[Event]:
            nonlocal steps
            steps += 1
            if steps == 3:
                interrupt()
            return step(self)

        monkeypatch.setattr(Engine, "step", interrupted)

    return prepare


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("interrupt", [lambda: signal.raise_signal(signal.SIGINT), swallowed_interrupt])
def test_an_interrupted_chat_answers_the_next_message(
    talk: Talk, tiny_model: Model, interrupt_in_the_third_step: Any, interrupt: Callable[[], None]
) -> None:
    interrupt_in_the_third_step(interrupt)
    ran = talk("hello", "/reset", "again")
    assert ran.code == 0
    assert ran.err.count("interrupted") == 1
    expected = tiny_model.chat(max_new_tokens=4, ignore_eos=True).say("again").text
    assert ran.out.splitlines()[-2] == expected


def test_an_interrupt_leaves_no_half_of_a_json_object(
    run: Run, interrupt_in_the_third_step: Any, tmp_path: Path
) -> None:
    interrupt_in_the_third_step(lambda: signal.raise_signal(signal.SIGINT))
    ran = run("hello", "--max-new-tokens", "9", "--json", "--trace", str(tmp_path / "trace.html"))
    assert (ran.code, ran.out, ran.err) == (130, "", "interrupted\n")
    assert not list(tmp_path.iterdir())


def test_a_process_that_ignores_interrupts_goes_on_to_do_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        remember_interrupts()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
