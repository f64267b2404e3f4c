"""A server in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO

from ventris.engine.errors import BadInput

STOP_SECONDS = 30.0


@dataclass
class ServerProcess:
    """A running server.

    Attributes:
        port: Where it listens, on loopback.
        lines: The last lines of its log.
    """

    process: subprocess.Popen[str]
    port: int
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=50))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def resident_bytes(self) -> int:
        """Memory that the process holds now; 0 where the system does not tell."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return 0
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0


@contextmanager
def served(arguments: Sequence[str]) -> Iterator[ServerProcess]:
    """Run ``ventris serve`` with ``arguments`` on a free port until the block ends.

    Raises:
        BadInput: if it does not come up; the message is its own.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "ventris", "serve", *arguments, "--port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        server = ServerProcess(process, _port(process.stderr))
        Thread(target=_drain, args=(process.stderr, server.lines), daemon=True).start()
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(log: IO[str]) -> int:
    said = ""
    for line in log:
        said = line.strip() or said
        if found := re.search(r"on http://127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    raise BadInput(f"the server did not start: {said.removeprefix('ventris: error: ')}")


def _drain(log: IO[str], lines: deque[str]) -> None:
    # A pipe that nobody reads would stop the server.
    lines.extend(line.rstrip() for line in log)
