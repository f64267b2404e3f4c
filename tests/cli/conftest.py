"""A tiny model on disk, and the command line run in this process or as one of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_model import write_tiny_model

import ventris.model
from ventris.cli.main import main
from ventris.model import Model

SOURCES = Path(ventris.__file__).parents[1]
SMALL = ["--dtype", "float32", "--kernels", "torch", "--threads", "1"]


@dataclass
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, with a cache folder of its own beside it."""
    return write_tiny_model(tmp_path_factory.mktemp("cli") / "tiny")


@pytest.fixture(scope="session")
def tiny_cache(tiny_folder: Path) -> Path:
    return tiny_folder.parent / "cache"


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path, tiny_cache: Path) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VENTRIS_CACHE", str(tiny_cache))
        return ventris.model.load(str(tiny_folder), "float32", "torch", "cpu", threads=1)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch, tiny_model: Model, tiny_cache: Path) -> list[tuple[Any, ...]]:
    """Every model loads as the tiny one; the list holds what was asked for."""
    asked: list[tuple[Any, ...]] = []

    def load(*arguments: Any, **named: Any) -> Model:
        asked.append((*arguments, *named.values()))
        return tiny_model

    monkeypatch.setattr("ventris.model.load", load)
    monkeypatch.setenv("VENTRIS_CACHE", str(tiny_cache))
    return asked


@pytest.fixture
def run(loads: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def call(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(arguments)
        printed = capsys.readouterr()
        return Ran(code, printed.out, printed.err)

    return call


@pytest.fixture
def start(tiny_folder: Path, tiny_cache: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Start a command on the tiny model as a process of its own."""

    def call(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(SOURCES), "VENTRIS_CACHE": str(tiny_cache)}
        command = [sys.executable, "-m", "ventris", *arguments, "--model", str(tiny_folder), *SMALL]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # A test run in the background ignores SIGINT, and its children would inherit that; a handler they
        # cannot inherit. (Not by `preexec_fn`, which may hang where libraries have started threads.)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(command, env=environment, **{**pipes, **options})
        finally:
            signal.signal(signal.SIGINT, before)

    return call
