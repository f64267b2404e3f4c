"""What only a process of its own shows: signals, closed pipes, terminals, and how fast it starts."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

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


class Terminal:
    """The user's end of a terminal: keys go in, and what is shown is read in its order."""

    def __init__(self) -> None:
        self._end, self.device = pty.openpty()
        self._shown = b""

    def type(self, keys: bytes) -> None:
        os.write(self._end, keys)

    def read_until(self, pattern: bytes) -> None:
        """Read on until something matches; what came along behind it is kept for the next time."""
        deadline = time.monotonic() + 60
        while (found := re.search(pattern, self._shown, re.DOTALL)) is None:
            assert time.monotonic() < deadline, f"waited for {pattern!r} in {self._shown!r}"
            if select.select([self._end], [], [], 1.0)[0]:
                # Fails with EIO once no process has the terminal any more: then the program has ended.
                self._shown += os.read(self._end, 4096)
        self._shown = self._shown[found.end() :]

    def close(self) -> None:
        os.close(self._end)


def test_chat_on_a_terminal(start: Start) -> None:
    terminal = Terminal()
    device = terminal.device
    process = start("chat", *ENDLESS, stdin=device, stdout=device, stderr=device, start_new_session=True)
    os.close(device)
    try:
        terminal.read_until(b"> ")
        terminal.type(b"hello\n")
        terminal.read_until(b"hello\r\n.{50}")
        process.send_signal(signal.SIGINT)
        terminal.read_until(b"interrupted")
        terminal.read_until(b"> ")
        terminal.type(b"/draft ngrm\n")
        terminal.read_until(b"did you mean 'ngram'\\?")
        terminal.read_until(b"> ")
        terminal.type(b"\x04")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        terminal.close()


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
