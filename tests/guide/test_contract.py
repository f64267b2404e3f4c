"""The engine's own checks of a guide, on a vocabulary of twelve tokens."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ventris.guide import Choice, Format, Grammar, HardGuide, Json, JsonSchema, Regex, Words
from ventris.testing import check_guide


class TwelveTokens:
    """Enough for small JSON; the first token ends the text."""

    vocabulary_bytes = (b"<end>", b"a", b"b", b"ab", b"1", b"12", b"[", b"]", b",", b'"', b'":', b"{")
    vocab_size = 12
    eos_ids = (0,)
    special_ids = frozenset({0})
    fingerprint = "twelve"

    def encode(self, text: str) -> list[int]:
        """The longest tokens, as far as they go: a lone "2" has no token."""
        longest = sorted(range(1, 12), key=lambda token: -len(self.vocabulary_bytes[token]))
        data, ids = text.encode(), []
        while data:
            token = next((t for t in longest if data.startswith(self.vocabulary_bytes[t])), None)
            if token is None:
                break
            ids.append(token)
            data = data[len(self.vocabulary_bytes[token]) :]
        return ids


GUIDES: dict[str, Callable[[], HardGuide]] = {
    "regex": lambda: Regex("[ab1]*2?"),
    "regex, forced": lambda: Regex("(abab12)*"),
    "choice": lambda: Choice(["ab1[ab", "abab", "b"]),
    "words": lambda: Words(["a1"], ["bb"]),
    "format": lambda: Format("a{x:int}b{y:word}"),
    "grammar": lambda: Grammar('start: "a" start "b" | "1"'),
    "json": lambda: Json("array"),
    "json-schema": lambda: JsonSchema({"type": "array", "items": {"enum": [1, 12, "ab"]}}),
    "unforced": lambda: Regex("(abab12)*", forced=False),
}


@pytest.mark.parametrize("name", GUIDES)
def test_the_contract_holds(name: str) -> None:
    tokenizer: Any = TwelveTokens()
    check_guide(lambda: GUIDES[name]().bind(tokenizer))


@pytest.mark.parametrize("name", GUIDES)
def test_the_best_token_is_that_of_the_masked_row(name: str) -> None:
    tokenizer: Any = TwelveTokens()
    guide = GUIDES[name]().bind(tokenizer)
    random, known = np.random.default_rng(7), 0
    for ends in ({0}, set(), {0, 5}):
        for _ in range(30):
            request: Any = SimpleNamespace(end_ids=frozenset(ends))
            state = guide.start(request)
            for _ in range(12):
                # Whole numbers, so that there are equals.
                row = random.integers(-3, 4, 14).astype(np.float32)
                masked = state.fork().adjust(torch.from_numpy(row.copy()), None).numpy()
                best = state.best(row)
                if best is None:
                    # Several are allowed, or none.
                    token = int(random.integers(14))
                else:
                    assert best == masked.argmax()
                    token, known = best, known + 1
                state.advance(token)
    assert known
