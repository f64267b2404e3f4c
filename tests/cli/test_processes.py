"""What only a process of its own shows: signals, closed pipes, terminals, and how fast it starts."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SOURCES

from ventris import __version__

Start = Callable[..., "subprocess.Popen[bytes]"]
ENDLESS = ("--max-new-tokens", "15000", "--ignore-eos")


def test_ctrl_c_ends_an_answer_cleanly(start: Start) -> None:
    process = start("hello", *ENDLESS)
    assert process.stdout is not None
    assert process.stdout.read(5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == b"interrupted\n"
    assert out.endswith(b"\n")


def test_ctrl_c_leaves_no_half_of_a_json_object(start: Start, tmp_path: Path) -> None:
    process = start("hello", *ENDLESS, "--json", "--trace", str(tmp_path / "trace.html"))
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"interrupted\n")
    assert not list(tmp_path.iterdir())


def test_a_reader_that_leaves_is_no_error(start: Start) -> None:
    process = start("hello", *ENDLESS)
    assert process.stdout is not None
    assert process.stdout.read(5)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141


def test_a_closed_stdout_is_no_error(start: Start) -> None:
    process = start("hello", "--max-new-tokens", "3", stdout=None, preexec_fn=lambda: os.close(1))
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")


@pytest.mark.long
def test_chat_on_a_terminal(start: Start) -> None:
    ours, theirs = pty.openpty()
    process = start("chat", *ENDLESS, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)

    def read_until(mark: bytes) -> bytes:
        seen, deadline = b"", time.monotonic() + 60
        while mark not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([ours], [], [], 1.0)[0]:
                seen += os.read(ours, 4096)
        return seen

    try:
        read_until(b"> ")
        os.write(ours, b"hello\n")
        read_until(b"\n")
        process.send_signal(signal.SIGINT)
        read_until(b"interrupted")
        read_until(b"> ")
        os.write(ours, b"/draft ngrm\n")
        read_until(b"did you mean 'ngram'?")
        read_until(b"> ")
        os.write(ours, b"\x04")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        os.close(ours)


def _imported(*arguments: str) -> str:
    """Modules that a command imports."""
    script = (
        "import sys; from ventris.cli.main import main; main(sys.argv[1:]); "
        "print(*sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stderr


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("generate", "--help"), ("papers",), ("parts",)]
)
def test_looking_around_does_not_import_torch(arguments: tuple[str, ...]) -> None:
    assert "torch" not in _imported(*arguments).split()


def test_python_m_ventris() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ventris", "--version"],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == f"ventris {__version__}\n"


def test_the_embedded_model_answers() -> None:
    from ventris.models.cache_folder import cache_folder
    from ventris.models.embedded import EMBEDDED_NAME, FILE_NAME, is_verified

    if not is_verified(cache_folder() / "models" / EMBEDDED_NAME / FILE_NAME):
        pytest.skip("the embedded model is not in the cache folder")
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "ventris",
            "What is the capital of France?",
            "--max-new-tokens",
            "12",
            "--stats",
        ],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert len(ran.stdout.strip()) > 10
    assert "tok/s" in ran.stderr
