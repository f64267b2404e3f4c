"""LongSpec with random weights: the contract, drafting against training, constant memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import families
import pytest
import random_heads
import torch
from rehearsing import Watched, branches
from trained import LONG, Place, longspec, network_of, torch_place

from ventris.draft.eagle import Eagle
from ventris.draft.longspec import SPARE_ROWS, LongSpec
from ventris.draft.longspec_network import LongSpecNetwork, Queries
from ventris.draft.ngram import NGram
from ventris.draft.stack import Stack
from ventris.draft.target_sketch import embedding_rows
from ventris.engine.batch import Engine
from ventris.engine.request import Request
from ventris.engine.sampling import Sampling
from ventris.models.torch_decoder import TorchDecoder
from ventris.policy.fixed import Fixed
from ventris.testing import check_drafter
from ventris.testing.checks import run
from ventris.train.longspec import LastLayer
from ventris.verify.match import Coupled, Greedy


@pytest.mark.parametrize(
    "settings",
    [{}, {"width": 1}, {"depth": 1}, {"nodes": 3, "width": 6, "depth": 8}, {"nodes": 40, "width": 7}],
)
def test_it_keeps_the_contract(settings):
    place = torch_place()
    check_drafter(LongSpec(place.target, network_of("longspec", place), **settings), place.target)


class Rehearsing(Watched):
    """Passes on to LongSpec, and asks the network as it is trained for each of its guesses."""

    def __init__(self, drafter: LongSpec, network: LongSpecNetwork, last_layer: LastLayer) -> None:
        super().__init__(drafter, network)
        self.last_layer = last_layer

    def compare(self, job, tree):
        inner = list(branches(tree))
        for path, children in inner[:1] + inner[1:][-1:]:
            # The root and what comes before it may all be still unknown to the target.
            offset = len(path) - 1 + len(job.stream.pending)
            chances = self.chances(job.request.tokens[:-1], path, offset)
            for child in children:
                assert tree.confidence[child] == pytest.approx(chances[tree.tokens[child]], rel=1e-3)
            self.compared[len(path)] += 1

    def chances(self, seen, path, offset):
        """Probability of each listed token after ``path`` (the root first), as it is trained."""
        target = self.drafter.target
        last = target.num_layers - 1
        hidden = self.target_rows(seen, last)
        # What stands after the last committed token must not matter.
        rows = torch.cat([hidden, 100 * torch.randn(len(path), target.hidden_size)])[None]
        tokens = [*seen, *path]
        positions = torch.arange(len(tokens))[None]
        lent = self.last_layer.lent(rows, positions)
        at = torch.tensor([len(tokens) - 1])
        queries = Queries(torch.zeros_like(at), at, offset)
        state = self.network.guess(embedding_rows(target, tokens)[None], positions, lent, queries)
        probabilities = self.network.vocabulary.one(0, state)[0].softmax(-1)
        return dict(zip(self.network.vocabulary.ids.tolist(), probabilities.tolist(), strict=True))


def rehearsing(monkeypatch, settings, family="smollm") -> Rehearsing:
    monkeypatch.setattr("ventris.draft.decoder_beside.drafting_dtype", lambda device: torch.float32)
    place = torch_place(family, listed=96)
    network = longspec(place, offsets=8)
    random_heads.shake(network, seed=6)
    last_layer = LastLayer(families.build(family).weights, place.config, place.target.device)
    return Rehearsing(LongSpec(place.target, network, **settings), network, last_layer)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("smollm", {}),
        ("smollm", {"width": 1, "depth": 4}),
        ("smollm", {"width": 3, "nodes": 30}),
        ("gemma2", {}),
        ("gemma3", {}),
        ("qwen3", {}),
        ("phi3", {}),
    ],
)
def test_drafting_does_what_training_rehearsed(monkeypatch, family, settings):
    watched = rehearsing(monkeypatch, settings, family)
    prompts = [[4, 5], list(range(1, 60))]  # the second one passes the window, and its rows are trimmed
    run(watched.drafter.target, Greedy(), watched, prompts=prompts, tokens=20)
    run(watched.drafter.target, Coupled(), watched, prompts=prompts, tokens=12, temperature=1.0, seed=3)
    assert watched.compared.total() > 30


def test_keys_of_other_places_are_noticed(monkeypatch):
    """A broken variant: the drafter reads the target's rows but for the last one."""
    watched = rehearsing(monkeypatch, {})
    forward = watched.drafter._block.forward

    def short_of_one(batch, taps):
        for rows in batch:
            rows.lent = rows.lent.fork()
            rows.lent.truncate(max(rows.lent.length - 1, 0))
        return forward(batch, taps)

    monkeypatch.setattr(watched.drafter._block, "forward", short_of_one)
    with pytest.raises(AssertionError):
        run(watched.drafter.target, Greedy(), watched, prompts=[[1, 2, 3, 1, 2]])


def test_a_drafter_that_was_not_asked_for_long_starts_anew(monkeypatch):
    watched = rehearsing(monkeypatch, {})
    asked = []

    class Silent(Rehearsing):
        def propose(self, jobs):
            asked.append(len(jobs[0].request.tokens))
            return super().propose(jobs)

    silent = Silent(watched.drafter, watched.network, watched.last_layer)
    # While the automaton has something to say, the block is not asked; it repeats more than a window.
    stack = Stack([NGram(min_match=2), silent])
    run(watched.drafter.target, Greedy(), stack, prompts=[[5, 6, 7] * 12], tokens=60)
    assert silent.compared.total() > 10
    assert max(b - a for a, b in pairwise(asked)) > 1


def long_place() -> Place:
    """A tiny decoder of 1024 positions."""
    family, place = families.build("llama"), torch_place("llama")
    target = TorchDecoder(family.config.with_context_length(1024), family.weights)
    return replace(place, target=target, config=target.config)


def peak_bytes(drafter, target, owner: str, context: int) -> int:
    """Most bytes that a drafter's own caches held while a text of some length was continued."""
    engine = Engine(target, chunk=64)
    prompt = [1 + i % 60 for i in range(context)]
    engine.add(Request(prompt, Greedy(), Fixed(), 24, Sampling(), drafter))
    held = 0
    for _ in engine.run():
        held = max(held, engine.ledger.held.get(owner, 0))
    return held


def test_memory_does_not_grow_with_the_text():
    place = long_place()
    target = place.target
    drafter = LongSpec(target, network_of("longspec", place))
    eagle = Eagle(target, network_of("eagle", place))
    lengths = (200, 400, 800)
    constant = [peak_bytes(drafter, target, "longspec", length) for length in lengths]
    assert len(set(constant)) == 1
    row = drafter._block.new_cache().layout.row_bytes
    assert 0 < constant[0] <= (16 + 2 * SPARE_ROWS) * row
    growing = [peak_bytes(eagle, target, "eagle", length) for length in lengths]
    assert growing[1] > 1.5 * growing[0]
    assert growing[2] > 1.5 * growing[1]


def test_memory_stays_in_a_long_answer(monkeypatch):
    place = long_place()
    target, drafter = place.target, LongSpec(place.target, network_of("longspec", place))
    rows = []
    drop = drafter._drop_old_rows

    def watched(cache):
        drop(cache)
        rows.append(cache.length)

    monkeypatch.setattr(drafter, "_drop_old_rows", watched)
    plain = run(target, Greedy(), None, tokens=120)
    drafted = run(target, Greedy(), drafter, tokens=120)
    assert drafted[0].tokens == plain[0].tokens
    assert 16 < max(rows) <= 16 + SPARE_ROWS
    assert rows != sorted(rows)


def test_the_targets_rows_are_read_where_they_lie():
    place = torch_place()
    target, drafter = place.target, LongSpec(place.target, network_of("longspec", place))
    seen = []
    forward = drafter._block.forward

    def watching(batch, taps):
        seen.extend(rows.lent for rows in batch)
        return forward(batch, taps)

    drafter._block.forward = watching
    engine = Engine(target)
    engine.add(Request(LONG, Greedy(), Fixed(), 8, Sampling(), drafter))
    caches = set()
    for _ in engine.run():
        caches |= {id(running.stream.cache) for running in engine.running}
    assert seen
    assert {id(cache) for cache in seen} <= caches
