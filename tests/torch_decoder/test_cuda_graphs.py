"""The padded forward of the GPU runtime equals the plain decoder; its capture needs a GPU."""

from __future__ import annotations

import random

import pytest
import torch

from ventris.engine.errors import BadInput
from ventris.engine.ledger import MemoryLedger
from ventris.engine.target import Rows, Target
from ventris.models.cuda_graphs import GraphedDecoder, length_bucket, node_bucket
from ventris.models.torch_decoder import TorchDecoder


def poisoned(cache):
    """Fill a cache's unwritten rows with NaN, so that a read of one shows."""
    cache.reserve(1).storage.data.fill_(torch.nan)
    return cache


def compare(target: TorchDecoder, graphed: GraphedDecoder, seed: int, tolerance: float) -> None:
    """Random steps with growing trees on both, with the same choices."""
    dice = random.Random(seed)
    caches = [poisoned(t.new_cache(capacity=20)) for t in (target, graphed)]
    length = 0
    while length < 90:
        count = dice.choice([1, 1, 2, 3, 5, 9])
        tokens = [dice.randrange(96) for _ in range(count)]
        parents = [-1, *(dice.randint(max(-1, node - 2), node - 1) for node in range(1, count))]
        split = dice.randint(1, count)
        wanted = [i for i in range(split) if dice.random() < 0.7]
        taps = dice.choice([(), (0, 2, 4)])
        results = []
        for one, cache in zip((target, graphed), caches, strict=True):
            scores = one.forward([Rows(cache, tokens[:split], parents[:split], wanted=wanted)], taps)
            results.append([*scores.logits, *scores.hidden.values()])
            if split < count:
                results[-1] += one.forward([Rows(cache, tokens[split:], parents, start=split)]).logits
        for expected, got in zip(*results, strict=True):
            largest = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
            torch.testing.assert_close(got, expected, atol=tolerance * largest, rtol=0)
        path = [dice.randrange(count)]
        while parents[path[0]] >= 0:
            path.insert(0, parents[path[0]])
        for cache in caches:
            cache.commit(path)
        length += len(path)
        if dice.random() < 0.1:
            length -= 1
            for cache in caches:
                cache.truncate(length)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "mistral", "phi3"])
def test_the_padded_forward_equals_the_decoder(name, dtype, tolerance, decoder):
    target = decoder(name, dtype)
    graphed = GraphedDecoder(target, capture=False)
    assert isinstance(graphed, Target)
    compare(target, graphed, seed=1, tolerance=tolerance)
    assert {key[0] for key in graphed.steps} <= {1, 2, 4, 8, 16}
    assert graphed.storage is not None


def test_what_does_not_fit_runs_in_the_decoder(decoder):
    target = decoder("llama")
    graphed = GraphedDecoder(target, capture=False)
    tokens = list(range(10))
    rows = [Rows(graphed.new_cache(), tokens, range(-1, 9)) for _ in range(2)]
    expected = target.forward([Rows(target.new_cache(), tokens, range(-1, 9))]).logits[0]
    for logits in graphed.forward(rows).logits:
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    rows[0].cache.commit(range(10))
    dropped, forked = rows[0].cache, rows[0].cache.fork()
    dropped.keep(torch.tensor([0, 3, 9]))
    tight = target.new_cache(capacity=16, ledger=MemoryLedger(16 * target.new_cache().layout.row_bytes))
    for cache, nodes in [(forked, 1), (dropped, 1), (graphed.new_cache(), 65), (tight, 16), (tight, 9)]:
        graphed.forward([Rows(cache, [5] * nodes, range(-1, nodes - 1))])
    assert list(graphed.steps) == [(16, 16, ())]
    tight.commit(range(9))
    graphed.forward([Rows(tight, [5] * 5, range(-1, 4))])
    assert list(graphed.steps) == [(16, 16, ())]
    graphed.release()
    assert graphed.storage is None


def test_buckets():
    assert [node_bucket(n) for n in (1, 2, 3, 17, 64)] == [1, 2, 4, 32, 64]
    assert [length_bucket(n, 1000) for n in (1, 64, 65, 512, 513)] == [64, 64, 128, 512, 1000]


def test_bad_input(decoder):
    with pytest.raises(BadInput, match="CUDA"):
        GraphedDecoder(decoder("llama"))
    graphed = GraphedDecoder(decoder("llama"), capture=False)
    with pytest.raises(BadInput, match="token 96"):
        graphed.forward([Rows(graphed.new_cache(), [96], [-1])])
    with pytest.raises(BadInput, match="cannot tap"):
        graphed.forward([Rows(graphed.new_cache(), [1], [-1])], taps=[9])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "mistral", "phi3"])
def test_captured_graphs_equal_the_decoder(name, family):
    target = TorchDecoder(family(name).config, family(name).weights, device="cuda")
    graphed = GraphedDecoder(target)
    compare(target, graphed, seed=2, tolerance=1e-4)
    assert all(step.graph is not None for step in graphed.steps.values())
