"""Rows that look up to a later one: blocks whose nodes see one another, in both runtimes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_decoders import LLAMA, decoder, random_tokens, random_weights
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.engine.target import Rows, Target
from ventris.models.config import DecoderConfig
from ventris.models.torch_decoder import TorchDecoder

PROMPT = 9
PARENTS = [-1, 0, 1, 1, 3, 1, 5, 4, 7]
SEES = [1, 1, 2, 4, 4, 6, 6, 8, 8]
"""Pairs (0, 1), (3, 4), (5, 6), (7, 8) below the one that they follow, and 2 alone."""

WINDOWED: dict[str, Any] = {"sliding_window": 4, "window_layers": (True, False, True)}


def runtimes(config: DecoderConfig) -> dict[str, Target]:
    return {"torch": TorchDecoder(config, random_weights(config)), "native": decoder(config, "float32")}


def logits(target: Target, tokens: list[int], prompt: list[int], cut: int = len(PARENTS)) -> Tensor:
    """Of the tree's nodes; those from ``cut`` on come in a second pass."""
    cache = target.new_cache()
    target.forward([Rows(cache, prompt, range(-1, len(prompt) - 1))])
    cache.commit(range(len(prompt)))
    parts = []
    for start, stop in ((0, cut), (cut, len(PARENTS))):
        if start < stop:
            rows = Rows(cache, tokens[start:stop], PARENTS[:stop], start, sees=SEES[start:stop])
            parts += target.forward([rows]).logits
    return torch.cat(parts)


def path(node: int) -> list[int]:
    return [] if node < 0 else [*path(PARENTS[node]), node]


@pytest.mark.parametrize("changes", [{}, WINDOWED], ids=["full", "windowed"])
def test_the_runtimes_agree(changes: dict[str, Any]) -> None:
    config = replace(LLAMA, **changes)
    prompt, tokens = random_tokens(config, PROMPT), random_tokens(config, len(PARENTS), seed=1)
    both = runtimes(config)
    expected = logits(both["torch"], tokens, prompt)
    for cut in (len(PARENTS), 7, 2):
        for target in both.values():
            torch.testing.assert_close(logits(target, tokens, prompt, cut), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("runtime", ["torch", "native"])
def test_a_node_sees_its_block_and_those_above_and_no_other(runtime: str) -> None:
    config = replace(LLAMA, num_layers=1)
    target = runtimes(config)[runtime]
    prompt, tokens = random_tokens(config, PROMPT), random_tokens(config, len(PARENTS), seed=1)
    before = logits(target, tokens, prompt)
    for changed in range(len(PARENTS)):
        other = [(token + 1) % config.vocab_size if n == changed else token for n, token in enumerate(tokens)]
        moved = (logits(target, other, prompt) != before).any(dim=1).tolist()
        assert moved == [changed in path(last) for last in SEES]


@pytest.mark.parametrize("runtime", ["torch", "native"])
@pytest.mark.parametrize("sees", [[1], [0, 2], [-1, 0]])
def test_what_is_no_row_is_refused(runtime: str, sees: list[int]) -> None:
    target = runtimes(LLAMA)[runtime]
    with pytest.raises(BadInput, match="look"):
        target.forward([Rows(target.new_cache(), [1, 2], [-1, 0], sees=sees)])
