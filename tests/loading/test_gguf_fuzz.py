"""Damaged GGUF files: refused in one line or read, never another exception and never much memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import write_gguf

from ventris.engine.errors import BadInput
from ventris.models.gguf_checkpoint import GgufCheckpoint
from ventris.models.weights import dense

MOST_GROWTH = 512 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits its memory in the way of Linux")


def try_to_load(path: Path) -> None:
    """Everything a start does with the file; only ``BadInput`` may come out."""
    try:
        checkpoint = GgufCheckpoint(path)
        known = checkpoint.describe()
        assert known.config is not None
        known.tokenizer.limit_ids(known.config.vocab_size)
        known.tokenizer.decode(known.tokenizer.encode("hello 12 world"))
        assert known.tokenizer.vocabulary_bytes
        weights = checkpoint.weights(known.config)
        for name in weights:
            dense(weights[name])
    except BadInput as refusal:
        assert "\n" not in str(refusal)  # noqa: PT017


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("fuzz")
    return write_gguf(folder / "m.gguf", kind="Q4_1").read_bytes()


@pytest.fixture(scope="module")
def header_end(sound: bytes) -> int:
    return sound.index(b"output_norm") + 4000


@pytest.fixture(scope="module", autouse=True)
def little_memory() -> Iterator[None]:
    """Let the process grow only a little: a count that is believed ends in MemoryError, a failure."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_GROWTH, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(data=st.data())
def test_changed_bytes(sound: bytes, header_end: int, tmp_path: Path, data: st.DataObject) -> None:
    changed = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, header_end))] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.gguf"
    path.write_bytes(changed)
    try_to_load(path)


@FUZZ
@given(data=st.data())
def test_changed_numbers(sound: bytes, header_end: int, tmp_path: Path, data: st.DataObject) -> None:
    at = data.draw(st.integers(8, header_end))
    value = data.draw(st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1, 2**62, 2**63, 2**64 - 1]))
    path = tmp_path / "m.gguf"
    path.write_bytes(sound[:at] + value.to_bytes(8, "little") + sound[at + 8 :])
    try_to_load(path)


@FUZZ
@given(cut=st.floats(0, 1))
def test_truncated(sound: bytes, tmp_path: Path, cut: float) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(sound[: int(len(sound) * cut**3)])
    try_to_load(path)


@FUZZ
@given(data=st.data())
def test_spliced(sound: bytes, header_end: int, tmp_path: Path, data: st.DataObject) -> None:
    places = st.integers(0, header_end)
    start, end, target = (data.draw(places) for _ in range(3))
    piece = sound[min(start, end) : max(start, end)]
    path = tmp_path / "m.gguf"
    path.write_bytes(sound[:target] + piece + sound[target + data.draw(st.sampled_from([0, len(piece)])) :])
    try_to_load(path)
