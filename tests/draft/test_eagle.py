"""EAGLE-3 with random weights: the contract, drafting against training, native against torch, checkpoints."""

from __future__ import annotations

import pytest
import random_heads
import torch
from rehearsing import Watched, branches
from tiny_decoders import LLAMA, random_weights
from trained import native_place, network_of

from ventris.draft.best_nodes import best_nodes
from ventris.draft.eagle import Eagle
from ventris.draft.eagle_layer import EagleLayer
from ventris.engine.errors import BadInput
from ventris.engine.ledger import MemoryLedger
from ventris.engine.target import Rows
from ventris.engine.tree import TokenTree
from ventris.models.torch_decoder import TorchDecoder
from ventris.testing import check_drafter
from ventris.testing.checks import run
from ventris.verify.match import Coupled, Greedy


@pytest.mark.parametrize(
    "settings",
    [{}, {"width": 1}, {"depth": 1}, {"nodes": 3, "width": 6, "depth": 8}, {"nodes": 40, "width": 7}],
)
def test_it_keeps_the_contract(settings):
    target = random_heads.tiny_target()
    check_drafter(Eagle(target, random_heads.eagle_network(target), **settings), target)


class Rehearsing(Watched):
    """Passes on to EAGLE-3, and asks the network as it is trained for each of its guesses."""

    def compare(self, job, tree):
        for path, children in branches(tree):
            chances = self.chances(job.request.tokens[:-1], path)
            for child in children:
                assert tree.confidence[child] == pytest.approx(chances[tree.tokens[child]], rel=1e-3)
            best = max(tree.confidence[child] for child in children)
            assert best == pytest.approx(max(chances.values()), rel=1e-3)
            self.compared[len(path)] += 1

    def chances(self, seen, path):
        """Probability of each listed token after ``path`` (the root first), by training-time test."""
        target, last = self.drafter.target, len(seen) - 1
        cache = target.new_cache()
        rows = Rows(cache, list(seen), range(-1, last))
        hidden = target.forward([rows], self.taps).hidden
        # What stands after the last committed token must not matter.
        after = 100 * torch.randn(len(path), target.hidden_size)
        tapped = [torch.cat([hidden[layer], after])[None] for layer in self.taps]
        following = [*seen[1:], *path, 0]
        embedded = target.embedding[following][None]
        at = torch.tensor([last])
        states = self.network.rehearse(tapped, embedded, torch.zeros_like(at), at, len(path))
        probabilities = self.network.head(states[-1])[0].softmax(-1)
        return dict(zip(self.network.ids.tolist(), probabilities.tolist(), strict=True))


@pytest.mark.parametrize("settings", [{}, {"width": 1, "depth": 4}, {"width": 3, "nodes": 30}])
def test_drafting_does_what_training_rehearsed(monkeypatch, settings):
    monkeypatch.setattr("ventris.draft.decoder_beside.drafting_dtype", lambda device: torch.float32)
    monkeypatch.setattr("ventris.models.stages.drafting_dtype", lambda device: torch.float32)
    target = random_heads.tiny_target()
    network = random_heads.eagle_network(target, target.vocab_size)
    watched = Rehearsing(Eagle(target, network, **settings), network)
    prompts = [[1, 2, 3, 1, 2], [4, 5], list(range(1, 40))]
    run(target, Greedy(), watched, prompts=prompts)
    run(target, Coupled(), watched, prompts=prompts, temperature=1.0, seed=3)
    assert watched.compared.total() > 100


def native_target(dtype: str):
    """A tiny native decoder with a network for it."""
    place = native_place(dtype)
    return place.target, network_of("eagle", place)


def test_the_native_layer_computes_what_the_torch_layer_does():
    target, network = native_target("float32")
    beside = TorchDecoder(LLAMA, random_weights(LLAMA))
    native, plain = EagleLayer(network, target), EagleLayer(network, beside)
    generator = torch.Generator().manual_seed(0)
    tapped = torch.randn(12, 3 * LLAMA.hidden_size, generator=generator)
    fused = native.fuse(tapped)
    torch.testing.assert_close(fused, plain.fuse(tapped).float(), rtol=0.05, atol=0.05)
    tokens = [5, 9, 200, 1, 17, 3]
    reads = []
    for layer in (native, plain):
        cache = layer.new_cache(16, MemoryLedger())
        first = layer.read([Rows(cache, tokens, range(-1, 5), 0, fused[:6], [5])])
        cache.commit(range(6))
        # Two branches below the root, then one node further down the second.
        tree = layer.read([Rows(cache, [4, 8], [-1, -1], 0, fused[6:8])])
        leaf = layer.read([Rows(cache, [2], [-1, -1, 1], 2, fused[8:9])])
        reads.append([first, tree, leaf])
    for one, other in zip(*reads, strict=True):
        scale = float(other.features.float().std())
        torch.testing.assert_close(one.features, other.features.float(), rtol=0.1, atol=0.05 * scale)
        assert one.logits.shape == other.logits.shape
        assert float((one.logits.softmax(-1) - other.logits.float().softmax(-1)).abs().sum(-1).max()) < 0.1


def test_the_native_layer_refuses_a_token_outside_the_vocabulary():
    target, network = native_target("float32")
    layer = EagleLayer(network, target)
    cache = layer.new_cache(4, MemoryLedger())
    with pytest.raises(BadInput, match="token 203 is outside the vocabulary"):
        layer.read([Rows(cache, [LLAMA.vocab_size], [-1], 0, torch.zeros(1, LLAMA.hidden_size))])


def test_the_best_nodes_are_a_tree():
    tree = TokenTree([0], [-1], [1.0])
    a = tree.add(1, 0, 0.5)
    b = tree.add(2, 0, 0.4)
    tree.add(3, b, 0.1)
    tree.add(4, a, 0.9)
    kept = best_nodes(tree, 3)
    assert (kept.tokens, kept.parents) == ([0, 1, 2, 4], [-1, 0, 0, 1])
    assert best_nodes(tree, 4) is tree
