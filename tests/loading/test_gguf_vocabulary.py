"""Tokenizers rebuilt from GGUF: llama.cpp gives the same ids on the same file."""

from __future__ import annotations

import random
from pathlib import Path

import gguf
import pytest
from tiny_models import SPECIAL, byte_alphabet, write_gguf

from ventris.engine.errors import BadInput
from ventris.models.gguf import GgufFile
from ventris.models.gguf_vocabulary import build_tokenizer
from ventris.models.tokenizer import TextStream, Tokenizer

LETTERS = "abcdefxyzXYZ 0123 \n\t\r'.,!?éß中日😀 ½٣\u00a0-_/\\\"()<>|$+=~^sLL"


def random_text(rng: random.Random) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randrange(50)))


def byte_level(path: Path, pre: str, add_bos: bool | None = None, bos: int = 1) -> Path:
    """A vocabulary of 500 merges learnt from random text."""
    rng, alphabet = random.Random(1), byte_alphabet()
    tokens, merges = [*SPECIAL, *alphabet], []
    known = set(tokens)
    while len(merges) < 500:
        spelled = "".join(alphabet[byte] for byte in random_text(rng).encode())
        start, cut, end = rng.randrange(50), rng.randrange(1, 3), rng.randrange(3, 5)
        left, right = spelled[start : start + cut], spelled[start + cut : start + end]
        if left in known and right in known and left + right not in known:
            known.add(left + right)
            tokens.append(left + right)
            merges.append(f"{left} {right}")

    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
        writer.add_token_merges(merges)
        writer.add_bos_token_id(bos)
        writer.add_eos_token_id(2)
        if add_bos is not None:
            writer.add_add_bos_token(add_bos)

    return write_gguf(path, vocabulary=False, edit=edit)


def sentencepiece(path: Path, prefix: bool) -> Path:
    """A vocabulary of 400 pieces with scores, byte tokens, and one token of a user's."""
    rng = random.Random(2)
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [2, 3, 3] + [6] * 256
    scores = [0.0] * len(pieces)
    letters = sorted(set(LETTERS.replace(" ", "▁")) - set("\n\t\r😀"))
    longer: dict[str, None] = {}
    while len(longer) < 400:
        longer["".join(rng.choice(letters) for _ in range(rng.randrange(2, 4)))] = None
    user = "<user>" if prefix else "  "
    for rank, piece in enumerate([*longer, *letters, user]):
        pieces.append(piece)
        kinds.append(4 if piece == user else 1)
        scores.append(-float(rank))

    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(pieces)
        writer.add_token_scores(scores)
        writer.add_token_types(kinds)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_add_space_prefix(prefix)

    return write_gguf(path, vocabulary=False, edit=edit)


def load(path: Path) -> Tokenizer:
    return Tokenizer(*build_tokenizer(GgufFile(path)))


# Not tekken and gpt-4o: there llama.cpp approximates the models' rule for capital letters past ASCII.
PRE = ["smollm", "gpt-2", "qwen2", "llama-bpe", "dbrx", "default", "command-r"]


@pytest.mark.parametrize("pre", PRE)
def test_byte_level_ids_equal_llama_cpp(tmp_path: Path, pre: str) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    path = byte_level(tmp_path / "m.gguf", pre, add_bos=False)
    tokenizer, peer = load(path), llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    rng = random.Random(3)
    for _ in range(300):
        text = random_text(rng) + rng.choice(["", "<|im_end|>"]) + random_text(rng)
        for special in (False, True):
            expected = peer.tokenize(text.encode(), add_bos=False, special=special)
            assert tokenizer.encode(text, special=special) == expected, text


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_ids_equal_llama_cpp(tmp_path: Path, prefix: bool) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    path = sentencepiece(tmp_path / "m.gguf", prefix)
    tokenizer, peer = load(path), llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    rng = random.Random(3)
    for _ in range(300):
        text = random_text(rng) + rng.choice(["", "<user>", "  "]) + random_text(rng)
        assert tokenizer.encode(text) == peer.tokenize(text.encode(), add_bos=False, special=False), text
        text += "</s>" + random_text(rng)
        expected = peer.tokenize(text.encode(), add_bos=True, special=True)
        assert tokenizer.encode(text, special=True) == expected, text


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_text_survives(tmp_path: Path, prefix: bool) -> None:
    tokenizer = load(sentencepiece(tmp_path / "m.gguf", prefix))
    rng = random.Random(4)
    for _ in range(200):
        text = random_text(rng)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text == tokenizer.backend.decode(ids)
        stream = TextStream(tokenizer)
        assert "".join(stream.push(token) for token in ids) + stream.finish() == text
        written = b"".join(map(tokenizer.token_bytes, ids))
        assert written == ((b" " if prefix and text else b"") + text.encode())


def test_plain_text_never_becomes_a_control_token_in_sentencepiece(tmp_path: Path) -> None:
    tokenizer = load(sentencepiece(tmp_path / "m.gguf", True))
    assert not set(tokenizer.encode("<s>a</s>")) & {1, 2}
    assert tokenizer.encode("<s>", special=True) == [1]


@pytest.mark.parametrize(("pre", "given", "expected"), [
    ("llama-bpe", None, True), ("llama-bpe", False, False), ("smollm", None, False), ("smollm", True, True),
])  # fmt: skip
def test_who_begins_with_bos(tmp_path: Path, pre: str, given: bool | None, expected: bool) -> None:
    tokenizer = load(byte_level(tmp_path / "m.gguf", pre, given))
    assert (tokenizer.encode("a", special=True)[0] == 1) == expected


def test_capital_letters_past_ascii_in_tekken(tmp_path: Path) -> None:
    """The models' own rule: a capital begins a word, whatever its script."""
    tokenizer = load(byte_level(tmp_path / "m.gguf", "tekken", False))
    words = tokenizer.backend.pre_tokenizer.pre_tokenize_str("fÑa éL")
    assert [span for _, span in words] == [(0, 1), (1, 3), (3, 5), (5, 6)]


def changed(path: Path, key: str, value: object) -> GgufFile:
    file = GgufFile(path)
    if value is None:
        del file.metadata[key]
    else:
        file.metadata[key] = value
    return file


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.model", "bert", "'bert'"),
        ("tokenizer.ggml.pre", "unheard-of", "'unheard-of'"),
        ("tokenizer.ggml.tokens", None, "no vocabulary"),
        ("tokenizer.ggml.token_type", None, "token_type"),
        ("tokenizer.ggml.merges", None, "no merges"),
        ("tokenizer.ggml.merges", ["ab"], "two parts"),
        ("tokenizer.ggml.merges", ["not there"], "makes no tokenizer"),
        ("tokenizer.ggml.eos_token_id", 10**6, "does not exist"),
    ],
)
def test_broken_vocabularies_are_refused(tmp_path: Path, key: str, value: object, message: str) -> None:
    file = changed(byte_level(tmp_path / "m.gguf", "smollm"), key, value)
    with pytest.raises(BadInput, match=message):
        build_tokenizer(file)


def test_repeated_and_empty_tokens_are_put_aside(tmp_path: Path) -> None:
    file = GgufFile(byte_level(tmp_path / "m.gguf", "smollm"))
    tokens = file.metadata["tokenizer.ggml.tokens"]
    tokens[-1], tokens[-2] = "a", ""
    file.metadata["tokenizer.ggml.merges"] = file.metadata["tokenizer.ggml.merges"][:-50]
    tokenizer = Tokenizer(*build_tokenizer(file))
    assert tokenizer.encode("a") == [tokens.index("a")]
    assert tokenizer.vocab_size == len(tokens)
