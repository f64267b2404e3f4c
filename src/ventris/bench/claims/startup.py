"""How long ``ventris generate`` takes to its first token, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import ventris
from ventris.bench.settings import BenchSettings

PROMPT = "Say good morning."
PATIENCE = 120.0


class StartupFailed(Exception):
    """The process ended without a token; the message is its last line."""


def first_token_seconds(settings: BenchSettings, runs: int = 3) -> list[float]:
    """Seconds from the start of the process to the first character of the answer, ``runs`` times.

    One run before them fills the caches and does not count.

    Raises:
        StartupFailed: if the command does not answer.
    """
    return [_once(settings) for _ in range(runs + 1)][1:]


def _once(settings: BenchSettings) -> float:
    threads = ["--threads", str(settings.threads)] if settings.threads else []
    command = [
        *(sys.executable, "-m", "ventris", "generate", PROMPT),
        *("--model", settings.model, "--dtype", settings.dtype, "--kernels", settings.kernels, *threads),
        *("--max-new-tokens", "8"),
    ]
    # The process finds this very package, wherever it was imported from.
    home = str(Path(ventris.__file__).parents[1])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    started = perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdout is not None  # it is a pipe
        first = process.stdout.read(1)
        seconds = perf_counter() - started
        try:
            _, said = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise StartupFailed(f"no end after {PATIENCE:.0f} s") from None
    if not first or process.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        raise StartupFailed(lines[-1] if lines else f"the command ended with {process.returncode}")
    return seconds
