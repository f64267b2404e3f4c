"""Ids, bytes and streams of a small byte-level vocabulary, from GGUF and from tokenizer.json alike."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import TEMPLATE, VOCAB, tokenizer_json, write_folder, write_gguf

from ventris.engine.errors import BadInput
from ventris.models.gguf import GgufFile
from ventris.models.gguf_vocabulary import build_tokenizer
from ventris.models.hf_tokenizer import read_folder_tokenizer
from ventris.models.tokenizer import TextStream, Tokenizer, TokenizerFacts

FACTS = TokenizerFacts(1, (2,), True, {"default": TEMPLATE}, {"bos_token": "<|im_start|>"})


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(tokenizer_json()), FACTS)


@pytest.fixture(scope="module")
def from_gguf(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = write_gguf(tmp_path_factory.mktemp("vocabulary") / "m.gguf")
    return Tokenizer(*build_tokenizer(GgufFile(path)))


def test_golden_ids(from_gguf: Tokenizer) -> None:
    """262 = ``hello``, 266 = ``Ġworld``, digits one by one, ``ĠĠ`` = 269; written down by hand."""
    alphabet = 3  # the first byte's id
    ids = from_gguf.encode("hello world 12  x")
    digits = [alphabet + ord("1"), alphabet + ord("2")]
    assert ids == [262, 267, alphabet + 32, *digits, alphabet + 32, alphabet + 32, alphabet + ord("x")]


def test_gguf_and_tokenizer_json_agree(tokenizer: Tokenizer, from_gguf: Tokenizer) -> None:
    texts = [
        "hello world",
        "  1234 don't\n\n",
        "中文 😀 ½ é",
        "<|im_end|>x<|im_start|>",
        "",
        "\x00\xa0\u200d",
    ]
    for text in texts:
        for special in (False, True):
            expected = tokenizer.backend
            expected.encode_special_tokens = not special
            ids = expected.encode(text, add_special_tokens=False).ids
            assert from_gguf.encode(text, special=special) == ids
    assert tokenizer.fingerprint == from_gguf.fingerprint
    assert from_gguf.vocab_size == VOCAB
    assert from_gguf.special_ids == {0, 1, 2}


def test_plain_text_never_becomes_a_control_token(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a<|im_end|>b")
    assert not set(ids) & tokenizer.special_ids
    assert tokenizer.decode(ids) == "a<|im_end|>b"


def test_whole_prompts_begin_once(tokenizer: Tokenizer, from_gguf: Tokenizer) -> None:
    assert tokenizer.encode("a", special=True) == [1, *tokenizer.encode("a")]
    assert tokenizer.encode("<|im_start|>a", special=True) == [1, *tokenizer.encode("a")]
    assert from_gguf.encode("a", special=True) == from_gguf.encode("a"), "its add_bos_token is false"


@given(st.text(max_size=40))
def test_plain_text_survives(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()


@given(st.lists(st.integers(0, VOCAB - 1), max_size=40), st.booleans())
def test_streams_say_what_decode_says(tokenizer: Tokenizer, ids: list[int], special: bool) -> None:
    stream = TextStream(tokenizer, special=special)
    pieces = [stream.push(token) for token in ids]
    pieces.append(stream.finish())
    whole = tokenizer.decode(ids, special=special)
    assert "".join(pieces) == whole
    assert whole == tokenizer.backend.decode(ids, skip_special_tokens=not special)


def test_incomplete_characters_are_held_back(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer)
    assert [stream.push(token) for token in tokenizer.encode("é😀")] == ["", "é", "", "", "", "😀"]
    assert stream.finish() == ""
    assert stream.push(tokenizer.encode("é")[0]) == ""
    assert stream.finish() == "\ufffd"


def test_byte_view_covers_the_vocabulary(tokenizer: Tokenizer) -> None:
    view = tokenizer.vocabulary_bytes
    assert len(view) == VOCAB
    assert sorted(view[3:259]) == [bytes([byte]) for byte in range(256)]
    assert tokenizer.token_bytes(2) == b"<|im_end|>"
    assert tokenizer.token_bytes(10**6) == b""


def test_lone_surrogates_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(BadInput, match="UTF-8"):
        tokenizer.encode("a\udc80")


def test_ids_past_the_model_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(BadInput, match=r"270 ids.*only 200"):
        Tokenizer(tokenizer.backend, FACTS).limit_ids(200)


def test_special_tokens_past_the_model_only_matter_when_used() -> None:
    backend = tokenizers.Tokenizer.from_str(tokenizer_json())
    backend.add_special_tokens(["<image>"])
    tokenizer = Tokenizer(backend, FACTS)
    tokenizer.limit_ids(VOCAB)
    assert tokenizer.encode("hello") == [262]
    with pytest.raises(BadInput, match="<image>"):
        tokenizer.encode("<image>", special=True)


def test_threads_do_not_turn_each_others_switch(tokenizer: Tokenizer) -> None:
    wrong: list[str] = []

    def work(special: bool) -> None:
        for _ in range(300):
            if (2 in tokenizer.encode("x<|im_end|>", special=special)) != special:
                wrong.append(f"special={special}")

    threads = [threading.Thread(target=work, args=(special,)) for special in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_truncation_and_padding_in_the_file_are_ignored() -> None:
    backend = tokenizers.Tokenizer.from_str(tokenizer_json())
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    assert len(Tokenizer(backend, FACTS).encode("abcd")) == 4


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_metaspace(scheme: str) -> None:
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE({"▁": 0, "a": 1, "b": 2, "▁a": 3, "?": 4}, [("▁", "a")], unk_token="?")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.decoder = tokenizers.decoders.Metaspace(prepend_scheme=scheme)
    tokenizer = Tokenizer(backend, TokenizerFacts())
    for text in ("a b", "  ab a", " a", "b"):
        ids = tokenizer.encode(text)
        stream = TextStream(tokenizer)
        assert "".join(stream.push(token) for token in ids) == backend.decode(ids)
        assert tokenizer.decode(ids) == backend.decode(ids)


def test_word_pieces_are_refused() -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    backend.decoder = tokenizers.decoders.WordPiece()
    with pytest.raises(BadInput, match="byte-level BPE nor SentencePiece"):
        Tokenizer(backend, FACTS)


def test_a_folder_names_its_special_tokens(tmp_path: Path) -> None:
    tokenizer = read_folder_tokenizer(write_folder(tmp_path / "m"), eos_ids=(0,))
    assert tokenizer.bos_id == 1
    assert tokenizer.eos_ids == (0, 2)
    assert not tokenizer.facts.add_bos
    assert tokenizer.has_chat_template


def test_template_files_go_before_the_settings(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}")
    tokenizer = read_folder_tokenizer(folder)
    assert tokenizer.chat_text([{"role": "user", "content": "hello"}]) == "<|im_start|>hello"
    assert tokenizer.chat([{"role": "user", "content": "hello"}]) == [1, 262]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1]", b'{"model": 3}'])
def test_damaged_tokenizers_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"tokenizer\.json"):
        read_folder_tokenizer(folder)


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(BadInput, match=r"no tokenizer\.json"):
        read_folder_tokenizer(folder)
