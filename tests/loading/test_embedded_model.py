"""The real embedded model: sizes, golden ids, llama.cpp's tokenizer, and what a warm start leaves alone."""

from __future__ import annotations

import importlib
import random
import unicodedata
from pathlib import Path

import pytest

from ventris.models.gguf_checkpoint import GgufCheckpoint
from ventris.models.load import load_decoder
from ventris.models.native import NativeDecoder, NativeUnavailable
from ventris.models.native.build import load_library
from ventris.models.source import ModelSource, resolve
from ventris.models.tokenizer import TextStream


@pytest.fixture(scope="module")
def model(embedded_path: Path) -> ModelSource:
    return resolve("smollm2-135m-instruct")


def test_config(model: ModelSource, embedded_path: Path) -> None:
    config = model.config
    assert config is not None
    assert (config.vocab_size, config.hidden_size, config.num_layers) == (49152, 576, 30)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (9, 3, 64)
    assert (config.rope_theta, config.context_length, config.tied_head) == (100_000.0, 8192, True)
    assert config.eos_ids == (2, 0)
    assert model.bits == 4
    assert model.weights["model.layers.29.mlp.down_proj.weight"].shape == (576, 1536)


# Written down from llama.cpp's tokenizer on the same file.
GOLDEN = {
    "Hello world": [19556, 905],
    "  def f(x):\n    return x**2": [216, 753, 275, 24, 104, 727, 472, 1003, 1792, 828, 34],
    "In 2024, 3.14": [788, 216, 34, 32, 34, 36, 28, 216, 35, 30, 33, 36],
    "中文 😀": [28589, 29184, 40303, 218],
}


@pytest.mark.parametrize("text", GOLDEN)
def test_golden_ids(model: ModelSource, embedded_path: Path, text: str) -> None:
    assert model.tokenizer.encode(text) == GOLDEN[text]
    assert model.tokenizer.decode(GOLDEN[text]) == text


def test_chat(model: ModelSource, embedded_path: Path) -> None:
    tokenizer = model.tokenizer
    ids = tokenizer.chat([{"role": "user", "content": "Hi"}])
    assert tokenizer.decode(ids, special=True) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ids[0] == 1
    assert ids[-5:] == [198, 1, 520, 9531, 198]


def varied_texts() -> list[str]:
    rng = random.Random(0)
    letters = "abc XYZ 012 \n\t'.,!?éß中日😀 ½٣\u00a0\u200d{}[]()#<>|_-"
    texts = [
        "don't we'll I'M",
        "def f(x):\n    return x ** 2  # ok\n\n\n\tpass",
        "1234567890 3.14159 ½ ² ٣ Ⅷ",
        "中文字符测试 日本語テキスト 한국어 مرحبا नमस्ते",
        "😀👍🏽👨\u200d👩\u200d👧 naïve café",
        "a\u00a0b\u2003c\r\n\r\n   ",
        "",
        "<|im_end|>x<|im_start|>",
        "\ufeffBOM\x00\x01",
    ]
    texts += ["".join(rng.choice(letters) for _ in range(rng.randrange(60))) for _ in range(300)]
    # Unassigned characters are left out: the two libraries know different versions of Unicode.
    known = [chr(code) for code in range(32, 0xFFFF) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
    texts += ["".join(rng.choice(known) for _ in range(rng.randrange(30))) for _ in range(200)]
    return texts


def test_ids_equal_llama_cpp(model: ModelSource, embedded_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    peer = llama_cpp.Llama(str(embedded_path), vocab_only=True, verbose=False)
    for text in varied_texts():
        for special in (False, True):
            expected = peer.tokenize(text.encode(), add_bos=False, special=special)
            assert model.tokenizer.encode(text, special=special) == expected, text


def test_text_survives(model: ModelSource, embedded_path: Path) -> None:
    for text in varied_texts():
        ids = model.tokenizer.encode(text)
        assert model.tokenizer.decode(ids) == text
        stream = TextStream(model.tokenizer)
        assert "".join(stream.push(token) for token in ids) + stream.finish() == text


def listing(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of change of every file."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


def test_a_warm_start_converts_nothing(embedded_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        load_library()
    except NativeUnavailable as reason:
        pytest.skip(f"the native runtime cannot be built here: {reason}")
    source = load_decoder("smollm2-135m-instruct")[2]
    folders = embedded_path.parent, source.cache.folder
    before = listing(*folders)
    assert any(file.name.startswith("weights-int4") for file in before)

    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("a warm start reads no more than the cache")

    # The package hides its module of this name behind the function.
    monkeypatch.setattr(importlib.import_module("ventris.models.native.pack"), "pack", refuse)
    for part in ("describe", "weights"):
        monkeypatch.setattr(GgufCheckpoint, part, refuse)
    assert isinstance(load_decoder("smollm2-135m-instruct")[0], NativeDecoder)
    assert listing(*folders) == before
