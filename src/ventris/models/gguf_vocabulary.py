"""The tokenizer inside a GGUF file, rebuilt with the ``tokenizers`` library.

GGUF keeps the vocabulary, the merges (or scores) and the *name* of the pre-tokenizer; the rules behind each
name are those of the original models' ``tokenizer.json``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from ventris.engine.errors import BadInput
from ventris.models.gguf import GgufFile
from ventris.models.tokenizer import TokenizerFacts

_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6
_LONGEST_PIECE = 256
"""Pieces longer than this are not searched for merges; SentencePiece itself stops at 16 by default."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORDS = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
_TEKKEN = _WORDS % ("", "") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _TAIL
_GPT4O = _WORDS % ((_CONTRACTIONS + "?",) * 2) + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _TAIL
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# What llama.cpp does where a converter knew no better.
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
_DIGIT = r"\p{N}"
_SINGLE_DIGITS = (_DIGIT, _GPT2)

_SPLITS: dict[str, tuple[str, ...]] = {
    "default": _DEFAULT,
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais"), (_GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), _SINGLE_DIGITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "dbrx", "smaug-bpe"), (_LLAMA3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2"), (_QWEN2,)),
    "tekken": (_TEKKEN,),
    "gpt-4o": (_GPT4O,),
}
_WHOLE_WORDS_FIRST = ("llama-bpe", "llama3", "llama-v3", "falcon3", "tekken")
"""Pre-tokenizers of models that look a word up before they merge it."""
_COMPOSED = ("qwen2", "deepseek-r1-qwen")
"""Pre-tokenizers of models that bring text to Unicode's form NFC first."""
_STOP_TEXTS = frozenset(
    ("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<end_of_turn>", "<|return|>")
)
"""Control tokens that end an answer although the file names only one of them (llama.cpp's list)."""


def bos_id(file: GgufFile) -> int | None:
    """Id of the token that begins a text, if the file names one."""
    return _named_id(file, "bos")


def stop_ids(file: GgufFile) -> tuple[int, ...]:
    """Ids that end an answer: the named ones first, then control tokens known for it.

    Raises:
        BadInput: if a named id lies outside the vocabulary.
    """
    named = [_named_id(file, name) for name in ("eos", "eot", "eom")]
    ids = [number for number in named if number is not None]
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    kinds = file.metadata.get("tokenizer.ggml.token_type")
    if isinstance(tokens, list) and isinstance(kinds, np.ndarray):
        controls = np.flatnonzero(kinds[: len(tokens)] == _CONTROL)
        ids += [number for number in controls.tolist() if tokens[number] in _STOP_TEXTS]
    return tuple(dict.fromkeys(ids))


def build_tokenizer(file: GgufFile) -> tuple[Tokenizer, TokenizerFacts]:
    """The tokenizer of ``file`` and what goes with it.

    Raises:
        BadInput: if the vocabulary is missing, at odds with itself, or of a kind that is not supported.
    """
    kind = file.get("tokenizer.ggml.model", str)
    build = {"gpt2": _byte_level, "llama": _sentencepiece}.get(kind)
    if build is None:
        raise BadInput(
            f"{file.path.name} has a tokenizer of the kind {kind!r}, which is not supported; "
            "use the transformers checkpoint of the model instead"
        )
    tokens = _tokens(file)
    kinds = _list(file, "tokenizer.ggml.token_type", len(tokens))
    try:
        backend = build(file, tokens, kinds)
    except BadInput:
        raise
    except Exception as error:  # the library raises bare Exception for a vocabulary it cannot take
        file.fail(f"its vocabulary makes no tokenizer ({error})")
    backend.add_special_tokens(
        [_added(tokens[number], True) for number in np.flatnonzero((kinds == _CONTROL) | (kinds == _UNKNOWN))]
    )
    backend.add_tokens([_added(tokens[number], False) for number in np.flatnonzero(kinds == _USER_DEFINED)])
    return backend, _facts(file, tokens, kind)


def _facts(file: GgufFile, tokens: Sequence[str], kind: str) -> TokenizerFacts:
    begin, stops = bos_id(file), stop_ids(file)
    pre = file.get("tokenizer.ggml.pre", str, "default")
    named = {name: _named_id(file, key) for name, key in _TEMPLATE_TOKENS.items()}
    templates = {}
    for name, suffix in (("default", ""), ("tool_use", ".tool_use")):
        if template := file.get("tokenizer.chat_template" + suffix, str, ""):
            templates[name] = template
    # llama.cpp adds the token for these where the file does not say.
    default_bos = kind == "llama" or pre in _WHOLE_WORDS_FIRST
    return TokenizerFacts(
        bos_id=begin,
        eos_ids=stops,
        add_bos=begin is not None and file.get("tokenizer.ggml.add_bos_token", bool, default_bos),
        chat_templates=templates,
        named_tokens={name: tokens[number] for name, number in named.items() if number is not None},
    )


_TEMPLATE_TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def _named_id(file: GgufFile, name: str) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in file.metadata:
        return None
    number: int = file.get(key, int)
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not 0 <= number < len(tokens):
        # Some converters write 2**32 - 1 for "none".
        if number == 2**32 - 1:
            return None
        file.fail(f"the metadata entry {key} names the token {number}, which does not exist")
    return number


def _tokens(file: GgufFile) -> list[str]:
    stored = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(stored, list) or not stored or not all(isinstance(token, str) for token in stored):
        file.fail("it has no vocabulary")
    if len(set(stored)) == len(stored) and "" not in stored:
        return stored
    # Padded vocabularies repeat a filler; only the first of equal tokens can ever be produced from text.
    seen = {""}
    tokens = []
    for number, token in enumerate(stored):
        tokens.append(f"[UNUSED_{number}]" if token in seen else token)
        seen.add(token)
    return tokens


def _list(file: GgufFile, key: str, size: int) -> np.ndarray:
    values = file.metadata.get(key)
    if not isinstance(values, np.ndarray) or values.shape != (size,):
        file.fail(f"the metadata entry {key} must have one number for each of the {size} tokens")
    return values


def _added(token: str, special: bool) -> AddedToken:
    return AddedToken(token, special=special, normalized=False)


def _byte_level(file: GgufFile, tokens: list[str], kinds: np.ndarray) -> Tokenizer:
    pre = file.get("tokenizer.ggml.pre", str, "default")
    splits = _SPLITS.get(pre)
    if splits is None:
        raise BadInput(
            f"{file.path.name} splits text in the way of {pre!r}, which is not supported; "
            "use the transformers checkpoint of the model instead"
        )
    stored = file.metadata.get("tokenizer.ggml.merges")
    if not isinstance(stored, list):
        file.fail("it has no merges")
    if any(not isinstance(merge, str) or " " not in merge for merge in stored):
        file.fail("one of its merges is not made of two parts")
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in stored)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre in _WHOLE_WORDS_FIRST))
    if pre in _COMPOSED:
        backend.normalizer = normalizers.NFC()
    # The original models write the rule for digits as a step of its own.
    steps = [
        pre_tokenizers.Digits(individual_digits=True)
        if split == _DIGIT
        else pre_tokenizers.Split(Regex(split), "isolated")
        for split in splits
    ]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(file: GgufFile, tokens: list[str], kinds: np.ndarray) -> Tokenizer:
    scores = _list(file, "tokenizer.ggml.scores", len(tokens))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    plain = [number for number, kind in enumerate(kinds.tolist()) if kind not in (_UNKNOWN, _CONTROL, _BYTE)]
    unknown = _named_id(file, "unknown")
    backend = Tokenizer(
        models.BPE(
            vocabulary,
            _merges(tokens, scores, plain, vocabulary),
            unk_token=tokens[unknown if unknown is not None else 0],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = file.get("tokenizer.ggml.add_space_prefix", bool, True)
    spaces = normalizers.Replace(" ", "▁")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return backend


def _merges(
    tokens: list[str], scores: np.ndarray, plain: list[int], vocabulary: dict[str, int]
) -> list[tuple[str, str]]:
    """Pairs of pieces that make a piece, best score first: SentencePiece's rule as a list of merges."""
    merges = []
    for number in plain:
        token = tokens[number]
        if len(token) > _LONGEST_PIECE:
            continue
        for cut in range(1, len(token)):
            left, right = vocabulary.get(token[:cut]), vocabulary.get(token[cut:])
            if left is not None and right is not None:
                merges.append((-float(scores[number]), left, right))
    merges.sort()
    return [(tokens[left], tokens[right]) for _, left, right in merges]
