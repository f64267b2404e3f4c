"""The same job on a local Ray cluster of two engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.batch.conftest import Write
from tests.batch.test_broken_off import kept, lines
from ventris.cli.main import main
from ventris.model import Model

pytestmark = pytest.mark.long


def test_two_engines_give_the_answers_of_one(
    folder: Path, model: Model, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="ray is not installed; pip install 'ventris[ray]'")
    monkeypatch.setenv("VENTRIS_CACHE", str(folder.parent / "cache"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Ray gives its helpers some seconds to start, which a busy machine may need longer for.
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "180000")
    requests = write(lines(24))
    small = ["--model", str(folder), "--dtype", "float32", "--kernels", "torch", "--threads", "1"]
    alone, together = tmp_path / "alone.jsonl", tmp_path / "together.jsonl"
    assert main(["batch", str(requests), "-o", str(alone), *small]) == 0
    width = ["--max-batch", "2", "--ray", "--replicas", "2"]
    assert main(["batch", str(requests), "-o", str(together), *small, *width]) == 0
    assert together.read_bytes() == alone.read_bytes()
    assert kept(together) == 0


def test_replicas_need_ray(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", str(write(lines(1))), "-o", str(tmp_path / "a.jsonl"), "--replicas", "2"]) == 2
    assert "--ray" in capsys.readouterr().err
