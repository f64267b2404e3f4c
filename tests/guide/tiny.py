"""A small vocabulary with the multi-byte tokens that make JSON interesting, and models that speak it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import tokenizers
import torch
from torch import Tensor

from ventris.engine.batch import Engine
from ventris.engine.request import Completion, Request
from ventris.engine.sampling import Sampling
from ventris.models.tokenizer import TextStream, Tokenizer, TokenizerFacts
from ventris.policy.fixed import Fixed
from ventris.testing.toy import ToyTarget
from ventris.verify import Coupled, Greedy

MERGES = [
    *('{ "', '" :', '" ,', '": "', '", "', "} ,", "} ]", ": {", ": [", "[ {"),
    *("t r", "u e", "tr ue", "n a", "m e", "na me", "1 2", "a b", "r e", "re d", "Ġ a", "Ġ Ġ"),
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PROMPT = [1, 40, 50, 40, 50, 2]


def byte_alphabet() -> list[str]:
    """GPT-2's characters for bytes 0 to 255."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in kept else chr(next(others)) for byte in range(256)]


@cache
def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE: three special tokens, 256 bytes and some merges."""
    tokens = SPECIAL + byte_alphabet() + [merge.replace(" ", "") for merge in MERGES]
    added = [
        {
            "id": i,
            "content": t,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for i, t in enumerate(SPECIAL)
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {
        "type": "BPE",
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": MERGES,
    }
    described = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": level,
        "decoder": level,
        "model": model,
    }
    backend = tokenizers.Tokenizer.from_str(json.dumps(described))
    return Tokenizer(backend, TokenizerFacts(bos_id=1, eos_ids=(2, 0)))


class TinyTarget(ToyTarget):
    """A toy over the tiny vocabulary that likes to close what it opened, so that its texts end.

    Args:
        padding: Rows of the model past the tokenizer's ids, as real models have them.
    """

    def __init__(self, seed: int = 0, padding: int = 5, **toy: Any) -> None:
        tokenizer = tiny_tokenizer()
        super().__init__(tokenizer.vocab_size + padding, seed, **{"memory": 3, **toy})
        self._liking = torch.zeros(self.vocab_size, dtype=torch.float64)
        for token, spelled in enumerate(tokenizer.vocabulary_bytes):
            if spelled in (b'"', b"}", b"]", b'"}', b"}]") or token in tokenizer.eos_ids:
                self._liking[token] = 6.0
            elif spelled.isalnum():
                self._liking[token] = 2.0

    def _law(self, seed: int, tail: tuple[int, ...]) -> Tensor:
        key = (seed, tail)
        if key not in self._laws:
            random = torch.Generator().manual_seed(hash(key) % 2**62)
            self._laws[key] = (
                torch.randn(self.vocab_size, generator=random, dtype=torch.float64) * 2 + self._liking
            )
        return self._laws[key]


def decode(
    guides: Sequence[Any],
    target: TinyTarget | None = None,
    drafter: Any = None,
    prompts: Sequence[Sequence[int]] = (PROMPT,),
    tokens: int = 60,
    verifier: Any = None,
    may_fail: bool = False,
    logprobs: int | None = None,
    stop: Sequence[str] = (),
    **sampling: Any,
) -> list[Completion]:
    """Decode prompts side by side under guides, bound here; none may fail, unless said otherwise."""
    tokenizer = tiny_tokenizer()
    engine = Engine(target or TinyTarget(), detokenizer=lambda: TextStream(tokenizer))
    bound = [guide.bind(tokenizer) if hasattr(guide, "bind") else guide for guide in guides]
    settings = Sampling(**sampling)
    completions = [
        engine.add(
            Request(
                list(prompt),
                verifier or (Greedy() if settings.greedy else Coupled()),
                Fixed(),
                tokens,
                settings,
                drafter,
                bound,
                frozenset(tokenizer.eos_ids),
                stop,
                logprobs,
            )
        )
        for prompt in prompts
    ]
    for _ in engine.run():
        pass
    for completion in completions:
        assert may_fail or completion.error is None, completion.error
    assert not engine.ledger.total
    return completions


def accepts(guide: Any, text: str) -> bool:
    """Whether the text is a whole text of the guide, by its masks and by its verdict at the end."""
    tokenizer = tiny_tokenizer()
    request: Any = type("View", (), {"end_ids": frozenset(tokenizer.eos_ids)})
    state = guide.bind(tokenizer).start(request)
    for token in tokenizer.encode(text):
        logits = state.adjust(torch.zeros(tokenizer.vocab_size), None)
        if logits[token] != 0:
            return False
        state.advance(token)
    return bool(state.valid) and bool(state.adjust(torch.zeros(tokenizer.vocab_size), None)[2] == 0)
