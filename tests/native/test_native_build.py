"""Building and packing: other instruction sets agree, and what cannot work says so in one line."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_decoders import (
    EVERYTHING,
    LLAMA,
    chain,
    decoder,
    mean_error,
    prefill,
    random_tokens,
    random_weights,
)

import ventris.models.native.decoder as decoder_module
from ventris.engine.errors import BadInput
from ventris.engine.target import Rows, Target
from ventris.models.native import NativeDecoder, NativeUnavailable, pack
from ventris.models.native.build import build, load_library
from ventris.models.native.pack import open_packed


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return pack(LLAMA, random_weights(LLAMA), "int4", tmp_path / "model.ventris")


@pytest.mark.parametrize(
    "flags", [("-DVENTRIS_PORTABLE", "-O1"), ("-march=x86-64-v3", "-O1")], ids=["portable", "avx2"]
)
def test_other_instruction_sets_agree(flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        library = load_library(flags)
    except NativeUnavailable as error:
        pytest.skip(str(error))
    if "march" in flags[0] and " avx2 " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU has no AVX2")
    tokens = random_tokens(EVERYTHING, 20)
    for dtype in ("float32", "bfloat16", "int8", "int4", "int4-a8"):
        here = prefill(decoder(EVERYTHING, dtype), tokens)[1]
        with monkeypatch.context() as patch:
            patch.setattr(decoder_module, "load_library", lambda: library)
            other = decoder(EVERYTHING, dtype)
            assert other.kernel in ("portable", "avx2")
            logits = prefill(other, tokens)[1]
            assert torch.equal(prefill(other, tokens, chunk=1)[1], logits)
        assert mean_error(logits, here) < (1e-5 if dtype == "float32" else 1e-2)


def test_it_is_a_target(packed: Path) -> None:
    model = NativeDecoder.open(packed)
    assert isinstance(model, Target)
    assert (model.vocab_size, model.hidden_size, model.num_layers) == (203, 64, 3)
    assert model.dtype == "int4"
    assert model.cache_dtype == torch.bfloat16
    assert model.threads >= 1
    assert NativeDecoder.open(packed, context_length=9).context_length == 9


def test_mapped_and_copied_weights_are_the_same(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = random_tokens(LLAMA, 9)
    results = []
    for room in (0, 1 << 40):
        monkeypatch.setitem(open_packed.__globals__, "_room_for_copies", lambda room=room: room)
        model = open_packed(packed)
        assert isinstance(model.data, np.memmap) == (room == 0)
        assert not model.data.flags.writeable
        results.append(prefill(NativeDecoder(model.config, model), tokens)[1])
    assert torch.equal(*results)


def test_progress_counts_every_tensor(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    pack(EVERYTHING, random_weights(EVERYTHING), "int8", tmp_path / "m", lambda *step: seen.append(step))
    assert seen == [(done, len(seen)) for done in range(1, len(seen) + 1)]


def test_an_interrupted_pack_leaves_nothing(tmp_path: Path) -> None:
    weights = random_weights(LLAMA)
    del weights["model.norm.weight"]
    with pytest.raises(BadInput, match=r"no weight model\.norm\.weight"):
        pack(LLAMA, weights, "int4", tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_wrong_shapes_and_dtypes_are_named(tmp_path: Path) -> None:
    weights = random_weights(LLAMA)
    with pytest.raises(BadInput, match="unknown dtype 'float16'"):
        pack(LLAMA, weights, "float16", tmp_path / "m")
    weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 64)
    with pytest.raises(BadInput, match=r"layers\.1\.mlp\.up_proj\.weight has shape \(3, 64\)"):
        pack(LLAMA, weights, "int4", tmp_path / "m")
    with pytest.raises(BadInput, match="even head sizes"):
        pack(replace(LLAMA, head_dim=7), weights, "int4", tmp_path / "m")


def damaged(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Files that cannot be read, with a word of the message each must give."""
    offset, size = struct.unpack("<QQ", content[8:24])
    index = json.loads(content[offset : offset + size])
    newer = json.dumps({**index, "version": 99}).encode()
    yield "cannot read", b""
    yield "not a packed model", b"GGUF" + content[4:]
    yield "not a packed model", content[:5]
    yield "damaged", content[: len(content) // 2]
    yield "damaged", content[:offset] + b"{" * size
    yield "damaged", content[:8] + struct.pack("<QQ", 0, 0)
    yield "version 99", content[:8] + struct.pack("<QQ", offset, len(newer)) + content[24:offset] + newer
    nameless = json.dumps({"version": 1}).encode()
    yield "damaged", content[:8] + struct.pack("<QQ", offset, len(nameless)) + content[24:offset] + nameless


def test_damaged_files_are_refused(packed: Path) -> None:
    content = packed.read_bytes()
    for message, bad in damaged(content):
        packed.write_bytes(bad)
        with pytest.raises(BadInput, match=message) as error:
            NativeDecoder.open(packed)
        assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="cannot read"):
        NativeDecoder.open(packed.with_name("missing"))


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(NativeUnavailable, match="no C\\+\\+ compiler"):
        build()


def test_a_failing_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "broken-c++"
    compiler.write_text("#!/bin/sh\necho 'panels.cpp: error: no vectors today' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("VENTRIS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(NativeUnavailable, match="no vectors today"):
        build()
    assert [path.name for path in (tmp_path / "cache" / "native").iterdir()] == ["lock"]


def test_bad_calls_are_refused() -> None:
    model = decoder(LLAMA)
    cache = model.new_cache()
    with pytest.raises(BadInput, match="token 203 is outside the vocabulary of 203"):
        model.forward([chain(cache, [1, 203])])
    with pytest.raises(BadInput, match="longer than the model's context of 256"):
        model.forward([chain(cache, [1] * 257)])
    with pytest.raises(BadInput, match="parents must come before"):
        model.forward([Rows(cache, [1, 2], [-1, 1])])
    with pytest.raises(BadInput, match="1 parents for 2 scratch rows"):
        model.forward([Rows(cache, [1, 2], [-1])])
    with pytest.raises(BadInput, match="wanted node"):
        model.forward([Rows(cache, [1, 2], [-1, 0], wanted=[2])])
    with pytest.raises(BadInput, match="taps"):
        model.forward([chain(cache, [1])], taps=[4])
    with pytest.raises(BadInput, match="rows of 64"):
        model.head(torch.zeros(2, 63))
    with pytest.raises(BadInput, match="layers 2 to 9"):
        model.run_layers([chain(cache, [1])], torch.zeros(1, 64), 2, 9)
    with pytest.raises(BadInput, match="3 hidden rows for 1 nodes"):
        model.run_layers([chain(cache, [1])], torch.zeros(3, 64), 0, 1)
    assert model.head(torch.zeros(0, 64)).shape == (0, 203)
    assert model.forward([Rows(cache, [1], [-1], wanted=[])]).logits[0].shape == (0, 203)
