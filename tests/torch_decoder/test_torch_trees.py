"""A node of a tree gets the logits that its path gets as plain text."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ventris.engine.target import Rows

RELAXED = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TOKEN = st.integers(0, 95)


@dataclass
class Request:
    """A prompt, a tree below it, and how many of its nodes each pass adds."""

    prompt: list[int]
    tokens: list[int]
    parents: list[int]
    cuts: list[int]

    def path(self, node: int) -> list[int]:
        tokens = []
        while node >= 0:
            tokens.append(self.tokens[node])
            node = self.parents[node]
        return self.prompt + tokens[::-1]


@st.composite
def requests(draw: st.DrawFn) -> Request:
    prompt = draw(st.lists(TOKEN, max_size=12))
    tokens = draw(st.lists(TOKEN, min_size=1, max_size=9))
    # Several nodes may follow the prompt itself.
    parents = [draw(st.integers(-1, node - 1)) for node in range(len(tokens))]
    cuts = sorted({*draw(st.lists(st.integers(1, len(tokens)), max_size=2)), len(tokens)})
    return Request(prompt, tokens, parents, cuts)


# In float64 rounding cannot hide a wrong row; in float32 the order of summation shows in the last digits.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "mistral", "phi3"])
@RELAXED
@given(batch=st.lists(requests(), min_size=1, max_size=3))
def test_trees_that_grow_in_a_batch(name, dtype, decoder, batch):
    target = decoder(name, dtype)
    caches = [target.new_cache(capacity=1) for _ in batch]
    for request, cache in zip(batch, caches, strict=True):
        if request.prompt:
            target.forward([Rows(cache, request.prompt, range(-1, len(request.prompt) - 1))])
            cache.commit(range(len(request.prompt)))

    logits: list[list[torch.Tensor]] = [[] for _ in batch]
    starts = [0] * len(batch)
    for depth in range(max(len(request.cuts) for request in batch)):
        growing = [i for i, request in enumerate(batch) if depth < len(request.cuts)]
        rows = []
        for i in growing:
            start, end = starts[i], batch[i].cuts[depth]
            rows.append(Rows(caches[i], batch[i].tokens[start:end], batch[i].parents[:end], start))
            starts[i] = end
        for i, part in zip(growing, target.forward(rows).logits, strict=True):
            logits[i].extend(part)

    for i, request in enumerate(batch):
        for node in range(len(request.tokens)):
            path = request.path(node)
            alone = target.forward([Rows(target.new_cache(), path, range(-1, len(path) - 1))]).logits[0][-1]
            error = (logits[i][node] - alone).abs().max() / alone.abs().max()
            assert error < TOLERANCES[dtype]


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_tree_in_segments_equals_one_pass(name, decoder):
    target = decoder(name)
    tokens, parents = [5, 9, 13, 2, 40, 7], [-1, 0, 0, 1, 2, 2]
    expected = target.forward([Rows(target.new_cache(), tokens, parents)]).logits[0]
    # The first nodes run through all layers, the later ones layer by layer.
    cache = target.new_cache()
    target.forward([Rows(cache, tokens[:2], parents[:2])])
    late = [Rows(cache, tokens[2:], parents, start=2)]
    hidden = target.embed(late)
    for layer in range(4):
        hidden, _ = target.run_layers(late, hidden, layer, layer + 1)
    torch.testing.assert_close(target.head(hidden), expected[2:], atol=1e-5, rtol=0)
