"""Choosing runtime and number format, packing, and what happens when something cannot be had."""

from __future__ import annotations

import errno
import importlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import decoder_tensors, gguf_tensors, write_folder, write_gguf

from ventris.engine.errors import BadInput
from ventris.engine.target import Rows, Target
from ventris.models import native
from ventris.models.load import load_decoder
from ventris.models.torch_decoder import TorchDecoder


def run(target: Target) -> torch.Tensor:
    tokens = [5, 9, 200, 3, 7]
    return target.forward([Rows(target.new_cache(), tokens, range(-1, 4))]).logits[0]


class NativeStub:
    """Stands for the native runtime: packs a marker, opens it, and can be told to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.packed: list[str] = []
        self.opened: list[Path] = []
        self.contexts: list[int | None] = []
        self.error: Exception | None = None
        self.unavailable = False
        monkeypatch.setattr(
            importlib.import_module("ventris.models.native.build"), "load_library", self.load_library
        )
        monkeypatch.setattr(native.NativeDecoder, "open", self.open)
        monkeypatch.setattr(native.NativeDecoder, "from_weights", self.from_weights)
        # The package hides its module of this name behind the function.
        monkeypatch.setattr(importlib.import_module("ventris.models.native.pack"), "pack", self.pack)

    def load_library(self) -> None:
        if self.unavailable:
            raise native.NativeUnavailable("no compiler")

    def pack(self, config: Any, weights: Any, dtype: str, path: Path, progress: Any = None) -> None:
        self.packed.append(dtype)
        path.write_bytes(b"packed")
        if self.error:
            raise self.error
        progress(1, 2)
        progress(2, 2)

    def open(
        self,
        path: Path,
        threads: int | None = None,
        context_length: int | None = None,
        activation_bits: int = 16,
    ) -> str:
        if path.read_bytes() != b"packed":
            raise BadInput("damaged packed model")
        self.opened.append(path)
        self.contexts.append(context_length)
        return f"native with {threads} threads"

    def from_weights(
        self,
        config: Any,
        weights: Any,
        dtype: str,
        threads: int | None = None,
        activation_bits: int = 16,
        context_length: int | None = None,
    ) -> str:
        self.contexts.append(context_length)
        if self.error and isinstance(self.error, OSError) and self.error.errno == errno.EIO:
            raise self.error
        return "native without a file"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> NativeStub:
    return NativeStub(monkeypatch)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def test_packed_once_and_opened_ever_after(tmp_path: Path, stub: NativeStub, own_cache: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", kind="Q4_1")
    told: list[tuple[str, float | None]] = []
    target, tokenizer, source = load_decoder(path, threads=3, progress=lambda *news: told.append(news))
    assert target == "native with 3 threads"
    assert tokenizer is source.tokenizer
    assert [share for _, share in told] == [0.5, 1.0]
    assert load_decoder(path)[0] == "native with None threads"
    assert stub.packed == ["int4"]
    folder = own_cache / "packed" / source.fingerprint
    assert {file.suffix for file in folder.iterdir()} == {".json", ".bin"}
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize(("kind", "expected"), [("Q4_0", "int4"), ("Q8_0", "int8")])
def test_auto_keeps_blocks(tmp_path: Path, stub: NativeStub, kind: str, expected: str) -> None:
    load_decoder(write_gguf(tmp_path / "m.gguf", kind=kind))
    assert stub.packed == [expected]


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_for_plain_weights(
    tmp_path: Path, stub: NativeStub, monkeypatch: pytest.MonkeyPatch, bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    load_decoder(write_folder(tmp_path / "m"))
    assert stub.packed == [expected]


def test_each_format_is_packed_for_itself(tmp_path: Path, stub: NativeStub) -> None:
    path = write_folder(tmp_path / "m")
    for dtype in ("int8", "float32", "int8"):
        load_decoder(path, dtype=dtype)
    assert stub.packed == ["int8", "float32"]


def test_a_damaged_packed_file_is_packed_anew(tmp_path: Path, stub: NativeStub, own_cache: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", kind="Q4_1")
    load_decoder(path)
    (packed,) = own_cache.rglob("weights-*.bin")
    packed.write_bytes(b"noise")
    assert load_decoder(path)[0] == "native with None threads"
    assert stub.packed == ["int4", "int4"]


def test_a_full_disk_is_a_warning(
    tmp_path: Path, stub: NativeStub, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stub.error = OSError(errno.ENOSPC, "No space left on device")
    told: list[str] = []
    target, _, _ = load_decoder(write_gguf(tmp_path / "m.gguf"), progress=lambda what, _: told.append(what))
    assert target == "native without a file"
    assert len(told) == 1
    assert "No space left" in told[0]
    assert "No space left" in caplog.text
    assert not list(own_cache.rglob("*weights*")), "nothing half-written"


def test_a_context_length_reaches_native_files(tmp_path: Path, stub: NativeStub, own_cache: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    for context in (24, 40, None):  # packed and opened, then only opened
        load_decoder(path, context_length=context)
    assert stub.contexts == [24, 40, None]
    stub.error = OSError(errno.ENOSPC, "No space left on device")
    for file in own_cache.rglob("weights-*.bin"):
        file.unlink()
    load_decoder(path, context_length=24)
    assert stub.contexts[3:] == [24]


def test_a_context_length_reaches_the_torch_runtime(tmp_path: Path) -> None:
    target, _, source = load_decoder(write_folder(tmp_path / "m"), kernels="torch", context_length=6)
    assert source.config is not None
    assert target.context_length == 6 != source.config.context_length
    run(target)
    with pytest.raises(BadInput, match="past the context of 6 tokens"):
        target.forward([Rows(target.new_cache(), [5] * 7, range(-1, 6))])


def test_no_room_at_all_is_refused(tmp_path: Path, stub: NativeStub) -> None:
    stub.error = OSError(errno.EIO, "no room")
    with pytest.raises(BadInput, match="VENTRIS_CACHE or TMPDIR"):
        load_decoder(write_gguf(tmp_path / "m.gguf"))


def test_an_interrupted_packing_leaves_nothing(tmp_path: Path, stub: NativeStub, own_cache: Path) -> None:
    stub.error = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        load_decoder(write_gguf(tmp_path / "m.gguf"))
    assert not list(own_cache.rglob("*weights*"))


def test_torch_takes_over(tmp_path: Path, stub: NativeStub, caplog: pytest.LogCaptureFixture) -> None:
    stub.unavailable = True
    path = write_gguf(tmp_path / "m.gguf", kind="Q4_1")
    target, _, _ = load_decoder(path)
    assert isinstance(target, TorchDecoder)
    assert target.dtype == torch.float32, "the same numbers as the 4-bit blocks"
    assert "no compiler" in caplog.text
    assert not stub.packed
    with pytest.raises(native.NativeUnavailable):
        load_decoder(path, kernels="native")


def test_torch_can_be_forced(tmp_path: Path, stub: NativeStub) -> None:
    path = write_gguf(tmp_path / "m.gguf", kind="Q4_1")
    assert isinstance(load_decoder(path, kernels="torch", dtype="int4")[0], TorchDecoder)
    target, _, _ = load_decoder(path, kernels="torch", dtype="bfloat16")
    assert isinstance(target, TorchDecoder)
    assert target.dtype == torch.bfloat16
    with pytest.raises(BadInput, match=r"round .* to int8"):
        load_decoder(path, kernels="torch", dtype="int8")
    assert not stub.packed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float16"}, "float16.*int4, int4-a8, int8"),
        ({"kernels": "fast"}, "fast.*native, torch"),
        ({"device": "abacus"}, "abacus"),
        ({"device": "cuda"}, "no GPU"),
        ({"device": "cuda:3"}, "no GPU"),
        ({"threads": 0}, "threads"),
        ({"context_length": 0}, "context_length must be 1 to"),
        ({"context_length": 2**24 + 1}, "context_length must be 1 to"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_decoder(tmp_path / "never looked at", **arguments)


def test_native_kernels_run_on_the_cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BadInput, match="CPU only"):
        load_decoder("x", kernels="native", device="cuda")


def test_models_for_transformers_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ventris.models.transformers_adapter import TransformersTarget

    made: list[tuple[object, ...]] = []

    class Fake:
        vocab_size = 300
        context_length = 100

    def fake_load(path: str, dtype: str, device: str) -> Fake:
        made.append((path, dtype, device))
        return Fake()

    monkeypatch.setattr(TransformersTarget, "load", fake_load)
    folder = write_folder(tmp_path / "m", model_type="gpt2")
    target, tokenizer, source = load_decoder(folder)
    assert isinstance(target, Fake)
    assert made == [(str(folder), "auto", "cpu")]
    assert source.config is None
    assert tokenizer.encode("hello") == [262]
    for arguments in ({"kernels": "native"}, {"dtype": "int4"}):
        with pytest.raises(BadInput, match="only transformers can run"):
            load_decoder(folder, **arguments)  # type: ignore[arg-type]
    assert load_decoder(folder, context_length=50)[0].context_length == 50
    with pytest.raises(BadInput, match="takes texts of 100 tokens; context_length cannot be 101"):
        load_decoder(folder, context_length=101)
    Fake.vocab_size = 100
    with pytest.raises(BadInput, match="belongs to the model"):
        load_decoder(folder)


@pytest.mark.parametrize("kind", ["F32", "BF16", "Q4_0", "Q4_1", "Q8_0"])
def test_gguf_computes_what_its_numbers_say(tmp_path: Path, kind: str) -> None:
    """A GGUF llama (rows permuted, blocks) gives the logits of the same numbers by transformers' names."""
    import gguf

    tensors = {
        name: tensor / 8 if tensor.dim() == 2 else tensor for name, tensor in decoder_tensors().items()
    }
    path = write_gguf(tmp_path / "m.gguf", gguf_tensors(tensors, "llama"), kind=kind)
    stored = gguf.GGMLQuantizationType[kind]
    rounded = {
        name: torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(tensor.numpy(), stored), stored))
        if tensor.dim() == 2
        else tensor
        for name, tensor in tensors.items()
    }
    target, _, source = load_decoder(path, kernels="torch", dtype="float32")
    assert source.config is not None
    expected = TorchDecoder(source.config, rounded)
    torch.testing.assert_close(run(target), run(expected), atol=1e-5, rtol=1e-5)


def test_the_real_native_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Path.home() / ".cache" / "ventris" / "native"
    if cache.is_dir():  # spare the compiler's time where the library has been built
        (tmp_path / "cache").mkdir()
        os.symlink(cache, tmp_path / "cache" / "native")
    tensors = {
        name: tensor / 8 if tensor.dim() == 2 else tensor for name, tensor in decoder_tensors().items()
    }
    path = write_gguf(tmp_path / "m.gguf", gguf_tensors(tensors, "llama"), kind="Q4_1")
    try:
        native_logits = [run(load_decoder(path, kernels="native")[0]) for _ in range(2)]
        short = load_decoder(path, kernels="native", context_length=5)[0]
    except native.NativeUnavailable as reason:
        pytest.skip(f"the native runtime cannot be built here: {reason}")
    torch_logits = run(load_decoder(path, kernels="torch")[0])
    assert torch.equal(*native_logits), "packed and opened again"
    assert short.context_length == 5
    assert torch.equal(run(short), native_logits[0])
    with pytest.raises(BadInput, match="longer than the model's context of 5"):
        short.forward([Rows(short.new_cache(), [5] * 6, range(-1, 5))])
    torch.testing.assert_close(native_logits[0], torch_logits, atol=0.1, rtol=0.05)
