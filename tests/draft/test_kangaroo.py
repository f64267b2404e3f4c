"""Kangaroo with random weights: the contract, no layer run twice, drafting against training, the law."""

from __future__ import annotations

from collections import Counter
from math import ceil

import pytest
import random_heads
import torch
from rehearsing import Watched
from trained import LONG, native_place, network_of, torch_place

from ventris.draft.kangaroo import Kangaroo, KangarooNetwork
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.shortlist import Shortlist
from ventris.engine import stream as streams
from ventris.engine.stream import Stream, begin, forward
from ventris.engine.tree import TokenTree
from ventris.testing import check_drafter, checks
from ventris.testing.checks import law_error, run
from ventris.testing.guides import HiddenShift
from ventris.testing.toy import ToyTarget
from ventris.train.first_weights import passing_weights
from ventris.verify.match import Coupled, Greedy
from ventris.verify.rejection import Rejection


def network_for(target, exit_layer=1, listed=40, feed_forward=False) -> KangarooNetwork:
    """An adapter near its start."""
    shortlist = Shortlist(torch.arange(listed), target.vocab_size)
    network = KangarooNetwork(target.config, exit_layer, listed, "stored", feed_forward)
    head = random_heads.target_head(target, shortlist)
    network.vocabulary.begin(shortlist, head)
    network.begin(passing_weights(network.config, head))
    random_heads.shake(network, 8)
    return network


@pytest.mark.parametrize(
    ("exit_layer", "settings"),
    [(1, {}), (2, {"confidence": 0.0, "depth": 8}), (3, {"confidence": 1.0}), (4, {"draw": False})],
)
def test_it_keeps_the_contract(exit_layer, settings):
    target = random_heads.tiny_target()
    check_drafter(Kangaroo(target, network_for(target, exit_layer), **settings), target)


class Counting:
    """Passes on to a target and counts the rows that go through each layer."""

    def __init__(self, target) -> None:
        self.target = target
        self.rows: Counter[int] = Counter()

    def __getattr__(self, name):
        return getattr(self.target, name)

    def run_layers(self, batch, hidden, first, last, taps=()):
        for layer in range(first, last):
            self.rows[layer] += len(hidden)
        return self.target.run_layers(batch, hidden, first, last, taps)

    def forward(self, batch, taps=()):
        for layer in range(self.num_layers):
            self.rows[layer] += sum(len(rows.tokens) for rows in batch)
        return self.target.forward(batch, taps)


def counted(monkeypatch=None, **settings):
    """Rows by layer of a drafted run, and the run."""
    target = Counting(random_heads.tiny_target())
    drafter = Kangaroo(target, network_for(target.target, 2), confidence=0.0, **settings)
    return target.rows, run(target, Greedy(), drafter, prompts=[[3, 4], LONG])


def test_no_row_goes_through_a_layer_twice(monkeypatch):
    rows, done = counted()
    assert sum(c.stats.drafted for c in done) > 50
    assert len(set(rows.values())) == 1
    # Without what the drafter began, the text is the same and the first layers run twice.
    monkeypatch.setattr(streams, "_begun_of", lambda entries: [None] * len(entries))
    again, same = counted()
    assert [c.tokens for c in same] == [c.tokens for c in done]
    assert again[0] == again[1] > 1.5 * again[2]
    assert again[2] == rows[2]


def native_target(dtype: str):
    """A tiny native decoder with a network for it."""
    place = native_place(dtype)
    return place.target, network_of("kangaroo", place)


@pytest.mark.parametrize("kind", ["torch", "native"])
@pytest.mark.parametrize("kept", ["all", "a beginning", "nothing but the root"])
def test_going_on_from_the_first_layers_is_the_whole_pass(kind, kept):
    target = random_heads.tiny_target() if kind == "torch" else native_target("float32")[0]
    tree = TokenTree.chain([5, 9, 20, 1], "test")
    other = {"all": [5, 9, 20, 1], "a beginning": [5, 9, 7], "nothing but the root": [5, 8, 20]}[kept]
    scored = TokenTree.chain(other, "test")

    def results(begun: bool):
        prompt, chunk = Stream(target, [4, 3, 5]), Stream(target, [1, 2, 3, 4])
        if begun:
            begin([(prompt, tree, [0])], 1)
            begin([(prompt, tree, [1])], 1)
            begin([(prompt, tree, [2])], 1)
        taps = [1, target.num_layers]
        rows = prompt.rows(scored, range(len(scored)))
        found = forward([(prompt, rows, taps), (chunk, chunk.feed(3), [0])])
        prompt.advance(scored, [0, 1], 6)
        after = forward([(prompt, prompt.rows(TokenTree.root(6), [0]), ())])
        return [found[0].logits, *(found[0].hidden[tap] for tap in taps), found[1].hidden[0], after[0].logits]

    for split, whole in zip(results(True), results(False), strict=True):
        if kind == "native":
            assert torch.equal(split, whole)
        torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-5)


class Rehearsing(Watched):
    """Passes on to Kangaroo, and asks the adapter as it is trained for each of its guesses."""

    def compare(self, job, tree):
        rows = self.target_rows([*job.request.tokens, *tree.tokens[1:]], self.network.exit_layer)
        chances = self.network.vocabulary.one(0, self.network(rows[None])[0]).softmax(-1)
        assert job.request.tokens[-1] == tree.tokens[0]
        for node in range(1, len(tree)):
            row = chances[len(job.request.tokens) - 2 + node]
            listed = self.network.vocabulary.ids.tolist().index(tree.tokens[node])
            assert tree.confidence[node] == pytest.approx(float(row[listed]), rel=1e-3)
            sure = float(row.max()) >= self.drafter.confidence
            last = node == len(tree) - 1
            assert sure or last
            self.compared[node] += 1


@pytest.mark.parametrize(
    "settings", [{"confidence": 0.0}, {"confidence": 0.05}, {"confidence": 0.0, "depth": 1}]
)
def test_drafting_does_what_training_rehearsed(monkeypatch, settings):
    monkeypatch.setattr("ventris.draft.decoder_beside.drafting_dtype", lambda device: torch.float32)
    target = random_heads.tiny_target()
    network = network_for(target, target.num_layers - 1, target.vocab_size)
    prompts = [[1, 2, 3, 1, 2], [4, 5], list(range(1, 40))]
    watched = Rehearsing(Kangaroo(target, network, **settings), network)
    run(target, Greedy(), watched, prompts=prompts)
    run(target, Coupled(), watched, prompts=prompts, temperature=1.0, seed=3)
    assert watched.compared.total() > 60


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2", "qwen3", "phi3"])
@pytest.mark.parametrize("feed_forward", [False, True])
def test_training_begins_at_the_targets_own_head_over_the_exit_layer(family, feed_forward):
    place = torch_place(family, listed=96)
    network = KangarooNetwork(place.config, 2, 96, "stored", feed_forward)
    network.vocabulary.begin(place.shortlist, place.head)
    network.begin(passing_weights(network.config, place.head))
    rows = torch.randn(2, 9, place.config.hidden_size)
    torch.testing.assert_close(network(rows), place.head.normed(rows), rtol=1e-4, atol=1e-5)


def test_the_adapter_reads_on_where_all_was_accepted(monkeypatch):
    """With the last layer as the exit and nothing added, every guess is the target's own."""
    monkeypatch.setattr("ventris.draft.decoder_beside.drafting_dtype", lambda device: torch.float32)
    target = random_heads.tiny_target()
    shortlist = Shortlist(torch.arange(target.vocab_size), target.vocab_size)
    network = KangarooNetwork(target.config, target.num_layers, target.vocab_size, "stored")
    head = random_heads.target_head(target, shortlist)
    network.vocabulary.begin(shortlist, head)
    network.begin(passing_weights(network.config, head))
    for depth in (1, 3, 6):
        watched = Rehearsing(Kangaroo(target, network, depth=depth, confidence=0.0), network)
        for done in run(target, Greedy(), watched, prompts=[[3, 4], LONG]):
            assert done.stats.accepted == done.stats.drafted
            assert done.stats.steps <= 1 + ceil(24 / (depth + 1))


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_a_guide_that_reads_an_early_layer(layer):
    target = random_heads.tiny_target(dtype=torch.float64)  # the guide turns noise into other tokens
    drafter = Kangaroo(target, network_for(target, 2), confidence=0.0)
    plain = run(target, Greedy(), None, [HiddenShift(layer)], prompts=[[3, 4], LONG])
    drafted = run(target, Greedy(), drafter, [HiddenShift(layer)], prompts=[[3, 4], LONG])
    assert [c.tokens for c in drafted] == [c.tokens for c in plain]


def beside_toy(stop):
    """Makes Kangaroo for a toy in place of a draft model; ``stop`` says after which drafts it stops."""

    def make(draft: ToyTarget, depth: int, **settings) -> Kangaroo:
        config = PrefixSizes(1, 2, 1, 1, 2, 4096, 1e4, 1e-5).decoder()
        network = KangarooNetwork(config, 1, draft.vocab_size, "stored")
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            network.vocabulary.ids.copy_(torch.arange(draft.vocab_size))
            network.vocabulary.rows.copy_(torch.randn(network.vocabulary.rows.shape, generator=generator))
            for parameter in network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

        class Stopping(Kangaroo):
            def _extend(self, growth, logits):
                super()._extend(growth, logits)
                stop(growth)

        return Stopping(draft, network, depth, confidence=0.0)

    return make


def test_stopping_by_the_token_just_drawn_leaves_the_law_alone(monkeypatch):
    def stop(growth):
        growth.going = growth.going and growth.tree.tokens[-1] != 1

    monkeypatch.setattr(checks, "DraftModel", beside_toy(stop))
    # The adapter computes in float32.
    assert law_error(Rejection, samples=1, depth=2) < 1e-6


def test_dropping_a_token_for_what_it_is_breaks_the_law(monkeypatch):
    def stop(growth):
        if growth.tree.tokens[-1] == 1:
            parent = len(growth.tree) - 2
            for column in (growth.tree.tokens, growth.tree.parents, growth.tree.confidence):
                column.pop()
            del growth.tree.draws[parent], growth.tree.draft_probs[parent]
            growth.going = False

    monkeypatch.setattr(checks, "DraftModel", beside_toy(stop))
    assert law_error(Rejection, samples=1, depth=2) > 1e-3
