"""A tiny model on disk, requests for it, and the command as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import ventris.model
from tests.cli.tiny_model import write_tiny_model
from ventris.model import Model

NAME = "tiny"
SOURCES = Path(ventris.__file__).parents[1]

Write = Callable[..., Path]
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("batch") / NAME)


@pytest.fixture(scope="session")
def model(folder: Path) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VENTRIS_CACHE", str(folder.parent / "cache"))
        loaded = ventris.model.load(str(folder), "float32", "torch", "cpu", threads=1)
        loaded.cost_curve()
        return loaded


@pytest.fixture
def start(folder: Path, model: Model) -> Start:
    """Start ``ventris batch`` on the tiny model; the session's model has measured its costs already."""

    def call(requests: Path, output: Path, *further: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(SOURCES),
            "VENTRIS_CACHE": str(folder.parent / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "ventris", "batch", str(requests), "-o", str(output)]
        small = ["--model", str(folder), "--dtype", "float32", "--kernels", "torch", "--threads", "1"]
        # A test run in the background ignores SIGINT, and its children would inherit that; a handler they
        # cannot inherit.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                [*command, *small, *further],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        finally:
            signal.signal(signal.SIGINT, before)

    return call


def chat_line(name: str, text: str = "hello", **fields: Any) -> dict[str, Any]:
    """A chat request in the batch format."""
    messages = [{"role": "user", "content": text}]
    body = {"model": NAME, "messages": messages, "max_tokens": 8, "temperature": 0, **fields}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


def text_line(name: str, prompt: Any = "hello", **fields: Any) -> dict[str, Any]:
    """A plain completion in the batch format."""
    body = {"model": NAME, "prompt": prompt, "max_tokens": 8, "temperature": 0, **fields}
    return {"custom_id": name, "method": "POST", "url": "/v1/completions", "body": body}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of requests."""

    def call(lines: Iterable[Any], name: str = "requests.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return call
