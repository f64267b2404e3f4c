"""Jobs that are broken off: kill -9 at any moment loses nothing and repeats nothing."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.batch.conftest import Start, Write, chat_line, text_line
from ventris.cli.main import main

SECONDS = 400
"""How long a test waits for what must happen at some time; nothing is measured by it."""


def lines(count: int) -> list[dict[str, object]]:
    """Requests of different lengths, greedy and seeded, some of them wrong, some drafted."""
    made: list[dict[str, object]] = []
    for n in range(count):
        fields = {"max_tokens": 20 + 13 * n % 50, "temperature": float(n % 3 == 1)}
        if n % 4 == 1:
            fields |= {"ventris": {"draft": "ngram", "verifier": "coupled" if n % 3 == 1 else "greedy"}}
        if n % 11 == 7:
            fields |= {"colour": "red"}
        made.append((chat_line, text_line)[n % 2](f"request {n}", f"question {n} " * (1 + n % 5), **fields))
    return made


def run_here(folder: Path, requests: Path, output: Path) -> bytes:
    """The output of a run that nothing disturbs, in this process."""
    small = ["--model", str(folder), "--dtype", "float32", "--kernels", "torch", "--threads", "1"]
    assert main(["batch", str(requests), "-o", str(output), *small]) == 0
    return output.read_bytes()


def kept(output: Path) -> int:
    """Whole answers in the journal."""
    journal = output.with_name(output.name + ".journal")
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def kill_at(process: subprocess.Popen[bytes], output: Path, answers: int, delay: float, sig: int) -> bool:
    """Break a job off a little after it has so many answers; false if it was faster."""
    end = time.monotonic() + SECONDS
    while kept(output) < answers and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.002)
    time.sleep(delay)
    ended = process.poll() is not None
    process.send_signal(sig)
    process.wait(SECONDS)
    return not ended


Broken = Callable[[int, int, int], None]


@pytest.fixture
def broken(
    start: Start, folder: Path, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Broken:
    """Kill a job again and again, let it finish, and compare it with one that nobody disturbed."""

    def call(count: int, kills: int, seed: int) -> None:
        requests, output = write(lines(count)), tmp_path / "answers.jsonl"
        expected = run_here(folder, requests, tmp_path / "unbroken.jsonl")
        moments = random.Random(seed)
        done = 0
        for _ in range(kills):
            # Anywhere from before the first answer to behind the last one.
            until = min(count, done + moments.randint(0, 2 * count // kills))
            process = start(requests, output)
            if not kill_at(process, output, until, moments.random() * 0.05, signal.SIGKILL):
                assert output.read_bytes() == expected
                break
            assert output.exists() or kept(output) >= done, "an answer was lost"
            done = kept(output)
        capsys.readouterr()
        assert run_here(folder, requests, output) == expected
        told = capsys.readouterr().err
        if "finished already" not in told:
            found = re.search(r"([\d,]+) of them by an earlier run", told)
            assert (int(found[1]) if found else 0) == done, "an answer was made twice"
        run_here(folder, requests, output)
        assert "finished already" in capsys.readouterr().err
        assert [path.name for path in tmp_path.glob("answers*")] == ["answers.jsonl"]

    return call


@pytest.fixture(autouse=True)
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENTRIS_CACHE", str(folder.parent / "cache"))


def test_two_kills_change_nothing(broken: Broken) -> None:
    broken(24, 2, 1)


@pytest.mark.long
@pytest.mark.parametrize("seed", [2, 3])
def test_ten_kills_change_nothing(broken: Broken, seed: int) -> None:
    broken(120, 10, seed)


def test_ctrl_c_keeps_what_is_there(start: Start, write: Write, tmp_path: Path) -> None:
    requests, output = write(lines(60)), tmp_path / "answers.jsonl"
    process = start(requests, output)
    assert kill_at(process, output, 3, 0.0, signal.SIGINT)
    assert process.returncode == 130
    assert process.stderr is not None
    assert process.stderr.read().splitlines()[-1] == b"interrupted"
    assert kept(output) >= 3
    assert not output.exists()


def test_a_kill_between_the_last_two_steps_changes_nothing(
    folder: Path, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, output = write(lines(4)), tmp_path / "answers.jsonl"
    with monkeypatch.context() as patch:
        # The answers are in place, and the journal is not gone yet.
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        expected = run_here(folder, requests, output)
    assert kept(output) == 4
    assert run_here(folder, requests, output) == expected
    assert kept(output) == 0


def test_the_command_says_what_is_wrong(
    folder: Path, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = write([chat_line("a"), chat_line("a")])
    assert main(["batch", str(requests), "-o", str(tmp_path / "answers.jsonl")]) == 2
    assert "line 2: custom_id 'a' is that of line 1 already" in capsys.readouterr().err
    assert main(["batch", str(requests), "-o", str(requests)]) == 2
    assert "name another file" in capsys.readouterr().err
    assert main(["batch", str(tmp_path / "none.jsonl"), "-o", str(tmp_path / "answers.jsonl")]) == 2
    assert "cannot read" in capsys.readouterr().err
