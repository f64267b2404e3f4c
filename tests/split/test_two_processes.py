"""Two real processes: that they agree, that the loss of one is one clear error, that none is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest
import torch
from pair import CPU
from safetensors.torch import load_file, save_file
from tiny_model import write_tiny_model

import ventris
from ventris.engine.errors import BadInput, StageLost, VentrisError
from ventris.models.config import DecoderConfig
from ventris.models.load import load_decoder
from ventris.models.source import resolve
from ventris.models.split.link import Link
from ventris.models.split.plan import Split, layers_before_cut, read_split, same_model_digest
from ventris.models.split.rendezvous import LOOPBACK, Address, Meeting
from ventris.models.split.second import run_second_stage

SOURCES = Path(ventris.__file__).parents[1]


@pytest.fixture(autouse=True)
def one_cache(tmp_path_factory, monkeypatch):
    """The second process sees this one's sources and cache folder."""
    monkeypatch.setenv("VENTRIS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(SOURCES))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("split") / "tiny")


def load(folder: Path, split: Split | None = None):
    return load_decoder(str(folder), "float32", "torch", "cpu", 1, split=split)


def eventually(holds: Callable[[], bool]) -> bool:
    last = time.monotonic() + 60
    while not holds() and time.monotonic() < last:
        time.sleep(0.05)
    return holds()


def running(process: int) -> bool:
    """Whether there is such a process, one that has ended and was not waited for left out."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def second_of(first: int) -> int:
    """The ``ventris stage`` process that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == first and b"\0ventris\0stage\0" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    (only,) = found
    return only


def test_the_same_text_and_then_the_loss_of_the_second_process(tiny):
    whole = ventris.load(str(tiny), "float32", "torch", "cpu", threads=1)
    model = ventris.load(str(tiny), "float32", "torch", "cpu", threads=1, stages=2)
    assert model.target.kernel == "torch-1+1"
    assert model.target.weight_bytes < whole.target.weight_bytes
    for settings in ({}, {"draft": "ngram"}, {"draft": "ngram", "temperature": 0.8}):
        given = {"max_new_tokens": 24, "policy": "fixed", **settings}
        one, other = (
            whole.generate(["Hello", "a b a b a"], **given),
            model.generate(["Hello", "a b a b a"], **given),
        )
        assert [c.tokens for c in other] == [c.tokens for c in one]
    child = second_of(os.getpid())
    os.kill(child, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(StageLost, match="the second stage is lost: its process was ended by signal 9"):
            model.generate("Hello", max_new_tokens=4)
    model.target.close()
    assert not running(child)


def test_a_second_process_that_does_not_start(tiny, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StageLost, match="second stage did not start: its process ended with code 1"):
        load(tiny, Split())


def test_nobody_comes_to_the_rendezvous(tiny):
    with pytest.raises(StageLost, match=r"did not start: nothing was heard at 127.0.0.1:\d+ for 0.2 seconds"):
        load(tiny, Split(Address(LOOPBACK, free_port()), start_seconds=0.2))


def test_there_is_no_first_process(tiny):
    with pytest.raises(StageLost, match="there is no first stage at "):
        run_second_stage(Address(LOOPBACK, free_port()), str(tiny), CPU, seconds=0.5)


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        return server.getsockname()[1]


def joined_by(folder: Path, address: Address) -> tuple[Thread, list[Exception]]:
    """``ventris stage`` in a thread, and what it raises."""
    raised: list[Exception] = []

    def join() -> None:
        try:
            run_second_stage(address, str(folder), CPU, seconds=60)
        except Exception as error:
            raised.append(error)

    thread = Thread(target=join, daemon=True)
    thread.start()
    return thread, raised


def test_a_rendezvous(tiny, tmp_path):
    """Another path of the same checkpoint, whose files are of another time, will do."""
    copy = write_tiny_model(tmp_path / "copy")
    address = Address(LOOPBACK, free_port())
    thread, raised = joined_by(copy, address)
    target, *_ = load(tiny, Split(address))
    assert target.num_layers == 2
    target.close()
    thread.join(30)
    assert not thread.is_alive()
    assert not raised


def test_another_model_at_the_rendezvous_is_refused(tiny, tmp_path):
    other = write_tiny_model(tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.layers.0.input_layernorm.weight"] += 0.5
    save_file(weights, other / "model.safetensors")
    assert same_model_digest(resolve(tiny)) != same_model_digest(resolve(other))
    address = Address(LOOPBACK, free_port())
    thread, raised = joined_by(other, address)
    with pytest.raises(BadInput, match="the second stage has another model than"):
        load(tiny, Split(address))
    thread.join(30)
    assert "has another model" in str(raised[0])


def test_a_silent_second_process_is_given_up():
    meeting = Meeting.open(Address(LOOPBACK, 0))
    others: list[object] = []
    silent = Thread(target=lambda: others.append(Meeting.join(meeting.address, 30).connect(CPU, nccl=False)))
    silent.start()
    link = Link(meeting.connect(CPU, nccl=False), 0.3, lambda: None)
    silent.join()
    with pytest.raises(StageLost, match=r"the second stage is lost: it was silent for 0.3 seconds"):
        link.ask({}, torch.zeros(1))
    with pytest.raises(StageLost):
        link.ask({}, torch.zeros(1))
    assert not link.close(5)


class HeldWire:
    """Answers nothing until it is let go, and keeps what it was given."""

    def __init__(self) -> None:
        self.sent: list[dict[str, object]] = []
        self.go = Event()

    def send(self, message, seconds, rows=None):
        self.sent.append(message)

    def receive(self, seconds):
        assert self.go.wait(30)
        return {}, torch.zeros(1)


def test_what_is_told_after_a_question_is_carried_out_after_it():
    """A caller who is interrupted gives its cache back while its question still waits behind another."""
    wire = HeldWire()
    link = Link(wire, 30, lambda: None)
    callers = [Thread(target=link.ask, args=({"number": n}, torch.zeros(1))) for n in range(2)]
    for number, caller in enumerate(callers):
        link.tell("reserve", number)
        caller.start()
        assert eventually(lambda: not link._commands)
    link.tell("release", 1)
    wire.go.set()
    for caller in callers:
        caller.join(30)
    link.ask({"number": 2}, torch.zeros(1))
    assert [(sent["number"], sent["commands"]) for sent in wire.sent] == [
        (0, [("reserve", 0)]),
        (1, [("reserve", 1)]),
        (2, [("release", 1)]),
    ]
    assert link.close(30)


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({"stages": 3}, "stages must be 1 or 2"),
        ({"rendezvous": "a:1"}, "add stages=2"),
        ({"second_layers": 1}, "add stages=2"),
        ({"stages": 2, "rendezvous": "here"}, "write HOST:PORT"),
        ({"stages": 2, "rendezvous": "here:0"}, "write HOST:PORT"),
        ({"stages": 2, "rendezvous": "0.0.0.0:29500"}, "nobody's address"),
        ({"stages": 2, "rendezvous": "192.0.2.1:29500"}, "cannot listen at 192.0.2.1:29500"),
        ({"stages": 2, "rendezvous": "ü..b:29500"}, "write HOST:PORT"),
        ({"stages": 2, "second_layers": 2}, "second_layers must be 1 to 1"),
        ({"stages": 2, "kernels": "native"}, "run a model in one process"),
    ],
)
def test_what_cannot_be_is_refused(tiny, given, refusal):
    with pytest.raises(BadInput, match=refusal):
        ventris.load(str(tiny), **{"dtype": "float32", "kernels": "torch", **given})


def test_shares_are_about_equal():
    """SmolLM2-135M: 28 million numbers in the tied embedding and 3.5 million in each of 30 layers."""
    config = DecoderConfig("llama", 49152, 576, 1536, 30, 9, 3, 64, 8192, tied_head=True)
    assert layers_before_cut(config, None) == 11
    assert layers_before_cut(config, 20) == 10


def test_settings_of_a_split():
    assert read_split(1, None, None) is None
    assert read_split(2, "10.0.0.1:29500", 7) == Split(Address("10.0.0.1", 29500), 7)


@pytest.mark.long
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_is_left_over(tiny, end):
    """However the first process ends, the second one ends too."""
    command = [
        sys.executable,
        "-m",
        "ventris",
        "hello",
        "--model",
        str(tiny),
        "--stages",
        "2",
        "--ignore-eos",
    ]
    command += ["--dtype", "float32", "--threads", "1", "--max-new-tokens", "15000"]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert first.stdout is not None
    assert first.stdout.read(3)
    child = second_of(first.pid)
    first.send_signal(end)
    _, err = first.communicate(timeout=120)
    if end == signal.SIGINT:
        assert (first.returncode, err) == (130, b"interrupted\n")
    assert eventually(lambda: not running(child))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_embedded_model(monkeypatch):
    """Token for token, with what its drafters read of both halves."""
    monkeypatch.delenv("VENTRIS_CACHE")
    try:
        whole = ventris.load(dtype="float32", kernels="torch", threads=1)
    except VentrisError as error:
        pytest.skip(str(error))
    model = ventris.load(dtype="float32", kernels="torch", threads=1, stages=2)
    assert model.target.kernel == "torch-11+19"
    prompts = ["Explain what a hash table is.", "Repeat: tik tok tik tok tik"]
    given = {"max_new_tokens": 24, "policy": "fixed"}
    plain = [done.tokens for done in whole.generate(prompts, **given)]
    for draft in (None, "ngram", "eagle", "hydra"):
        assert [done.tokens for done in model.generate(prompts, draft=draft, **given)] == plain
    budget = model.target.weight_bytes + 40_000_000
    within = ventris.Model(model.target, model.tokenizer, model.source, memory_budget=budget)
    assert [done.tokens for done in within.generate(prompts, draft="ngram", **given)] == plain
