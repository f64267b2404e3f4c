"""LongSpec with random weights: the contract, drafting against training, constant memory, checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import random_heads
import torch
from tiny_decoders import LLAMA, random_weights

from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.eagle import Eagle
from ventris.draft.longspec import SPARE_ROWS, LongSpec
from ventris.draft.longspec_network import LongSpecNetwork, Queries
from ventris.draft.ngram import NGram
from ventris.draft.shortlist import Shortlist
from ventris.draft.stack import Stack
from ventris.draft.target_head import TargetHead
from ventris.draft.target_sketch import TargetSketch
from ventris.engine.batch import Engine
from ventris.engine.errors import BadInput
from ventris.engine.request import Request
from ventris.engine.sampling import Sampling
from ventris.engine.target import Rows
from ventris.models.torch_decoder import TorchDecoder
from ventris.policy.fixed import Fixed
from ventris.testing import check_drafter
from ventris.testing.checks import run
from ventris.train.first_weights import passing_weights
from ventris.train.longspec import LastLayer
from ventris.verify.match import Coupled, Greedy

LONG = [1 + i % 60 for i in range(45)]  # read in several chunks of sixteen, and longer than the window


@pytest.mark.parametrize(
    "settings",
    [{}, {"width": 1}, {"depth": 1}, {"nodes": 3, "width": 6, "depth": 8}, {"nodes": 40, "width": 7}],
)
def test_it_keeps_the_contract(settings):
    target = random_heads.tiny_target()
    check_drafter(LongSpec(target, random_heads.longspec_network(target), **settings), target)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "qwen3"])
def test_other_families_and_long_prompts_in_a_batch(family):
    target = random_heads.tiny_target(family)
    drafter = LongSpec(target, random_heads.longspec_network(target))
    prompts = [LONG, [3, 4], LONG[:30], [7]]
    for verifier, settings in ((Greedy(), {}), (Coupled(), {"temperature": 1.0, "seed": 4})):
        plain = [c.tokens for c in run(target, verifier, None, prompts=prompts, **settings)]
        drafted = run(target, verifier, drafter, prompts=prompts, **settings)
        assert [c.tokens for c in drafted] == plain
        assert all(c.stats.drafted for c in drafted)


def test_a_stack_with_another_drafter():
    target = random_heads.tiny_target()
    drafter = LongSpec(target, random_heads.longspec_network(target))
    check_drafter(Stack([NGram(min_match=2), drafter]), target)


class Rehearsing:
    """Passes on to LongSpec, and asks the network as it is trained for each of its guesses."""

    name, draws, taps = "longspec", False, ()

    def __init__(self, drafter: LongSpec, network: LongSpecNetwork, last_layer: LastLayer) -> None:
        self.drafter, self.network, self.last_layer = drafter, network, last_layer
        self.shape = drafter.shape
        self.compared = 0

    def start(self, request):
        return self.drafter.start(request)

    def observe(self, state, commit):
        self.drafter.observe(state, commit)

    def finish(self, state):
        self.drafter.finish(state)

    def propose(self, jobs):
        trees = self.drafter.propose(jobs)
        for job, tree in zip(jobs, trees, strict=True):
            below = tree.children()
            inner = [node for node in range(len(tree)) if below[node]]
            for node in {*inner[:1], *inner[-1:]}:
                path = [tree.tokens[n] for n in tree.path_to(node)]
                # The root and what comes before it may all be still unknown to the target.
                offset = len(path) - 1 + len(job.stream.pending)
                chances = self.chances(job.request.tokens[:-1], path, offset)
                for child in below[node]:
                    assert tree.confidence[child] == pytest.approx(chances[tree.tokens[child]], rel=1e-3)
                self.compared += 1
        return trees

    @torch.no_grad()
    def chances(self, seen, path, offset):
        """Probability of each listed token after ``path`` (the root first), as it is trained."""
        target = self.drafter.target
        last = target.num_layers - 1
        hidden = target.forward([Rows(target.new_cache(), list(seen), range(-1, len(seen) - 1))], [last])
        # What stands after the last committed token must not matter.
        rows = torch.cat([hidden.hidden[last], 100 * torch.randn(len(path), target.hidden_size)])[None]
        tokens = [*seen, *path]
        positions = torch.arange(len(tokens))[None]
        lent = self.last_layer.lent(rows, positions)
        at = torch.tensor([len(tokens) - 1])
        queries = Queries(torch.zeros_like(at), at, offset)
        state = self.network.guess(target.embedding[tokens][None], positions, lent, queries)
        probabilities = self.network.vocabulary.one(0, state)[0].softmax(-1)
        return dict(zip(self.network.vocabulary.ids.tolist(), probabilities.tolist(), strict=True))


def rehearsing(monkeypatch, settings, family="smollm", offsets=8) -> Rehearsing:
    monkeypatch.setattr("ventris.draft.decoder_beside.drafting_dtype", lambda device: torch.float32)
    target = random_heads.tiny_target(family)
    network = random_heads.longspec_network(target, target.vocab_size, offsets=offsets)
    last_layer = LastLayer(random_heads.families.build(family).weights, target.config, target.device)
    return Rehearsing(LongSpec(target, network, **settings), network, last_layer)


@pytest.mark.parametrize("settings", [{}, {"width": 1, "depth": 4}, {"width": 3, "nodes": 30}])
def test_drafting_does_what_training_rehearsed(monkeypatch, settings):
    watched = rehearsing(monkeypatch, settings)
    prompts = [[4, 5], list(range(1, 60))]  # the second one passes the window, and its rows are trimmed
    run(watched.drafter.target, Greedy(), watched, prompts=prompts, tokens=20)
    run(watched.drafter.target, Coupled(), watched, prompts=prompts, tokens=12, temperature=1.0, seed=3)
    assert watched.compared > 50


def test_keys_of_other_places_are_noticed(monkeypatch):
    """A broken variant: the drafter reads the target's rows but for the last one."""
    watched = rehearsing(monkeypatch, {})
    forward = watched.drafter._block.forward

    def short_of_one(batch):
        for rows in batch:
            rows.lent = rows.lent.fork()
            rows.lent.truncate(max(rows.lent.length - 1, 0))
        return forward(batch)

    monkeypatch.setattr(watched.drafter._block, "forward", short_of_one)
    with pytest.raises(AssertionError):
        run(watched.drafter.target, Greedy(), watched, prompts=[[1, 2, 3, 1, 2]])


def test_a_step_that_was_given_up_is_asked_again():
    target = random_heads.tiny_target()
    drafter = LongSpec(target, random_heads.longspec_network(target))

    class Stuttering(LongSpec):
        def propose(self, jobs):
            first, again = drafter.propose(jobs), drafter.propose(jobs)
            assert [tree.tokens for tree in again] == [tree.tokens for tree in first]
            return again

    plain = [c.tokens for c in run(target, Greedy(), None, prompts=[[3, 4], LONG])]
    watched = Stuttering(target, random_heads.longspec_network(target))
    assert [c.tokens for c in run(target, Greedy(), watched, prompts=[[3, 4], LONG])] == plain


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
    assert silent.compared > 10
    assert max(b - a for a, b in zip(asked, asked[1:], strict=False)) > 1


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
    family = random_heads.families.build("llama")
    target = TorchDecoder(family.config.with_context_length(1024), family.weights)
    longspec = LongSpec(target, random_heads.longspec_network(target))
    eagle = Eagle(target, random_heads.eagle_network(target))
    lengths = (200, 400, 800)
    constant = [peak_bytes(longspec, target, "longspec", length) for length in lengths]
    assert len(set(constant)) == 1
    row = longspec._block.new_cache().layout.row_bytes
    assert 0 < constant[0] <= (16 + 2 * SPARE_ROWS) * row
    growing = [peak_bytes(eagle, target, "eagle", length) for length in lengths]
    assert growing[1] > 1.5 * growing[0]
    assert growing[2] > 1.5 * growing[1]


def test_memory_stays_in_a_long_answer(monkeypatch):
    family = random_heads.families.build("llama")
    target = TorchDecoder(family.config.with_context_length(1024), family.weights)
    drafter = LongSpec(target, random_heads.longspec_network(target))
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
    target = random_heads.tiny_target()
    drafter = LongSpec(target, random_heads.longspec_network(target))
    seen = []
    forward = drafter._block.forward

    def watching(batch):
        seen.extend(rows.lent for rows in batch)
        return forward(batch)

    drafter._block.forward = watching
    engine = Engine(target)
    engine.add(Request(LONG, Greedy(), Fixed(), 8, Sampling(), drafter))
    caches = set()
    for _ in engine.run():
        caches |= {id(running.stream.cache) for running in engine.running}
    assert seen
    assert {id(cache) for cache in seen} <= caches


def native_target(dtype: str):
    """A tiny native decoder with a network for it."""
    from ventris.models.native import NativeDecoder, NativeUnavailable

    weights = random_weights(LLAMA)
    try:
        target = NativeDecoder.from_weights(LLAMA, weights, dtype, threads=1)
    except NativeUnavailable as reason:
        pytest.skip(str(reason))
    shortlist = Shortlist(torch.arange(3, 100), LLAMA.vocab_size)
    head = TargetHead(weights["model.norm.weight"], LLAMA.norm_eps, weights["lm_head.weight"][3:100])
    network = LongSpecNetwork(LLAMA, 16, 4, 97, "stored")
    network.vocabulary.begin(shortlist, head)
    network.begin(passing_weights(network.config, head))
    random_heads.shake(network, 3)
    return target, network


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_on_the_native_runtime(dtype):
    target, network = native_target(dtype)
    check_drafter(LongSpec(target, network), target)


def write(folder: Path, target: TorchDecoder) -> LongSpecNetwork:
    network = random_heads.longspec_network(target)
    HeadCheckpoint("longspec", TargetSketch.of(target), network.sizes, {}, network.state_dict()).save(folder)
    return network


def test_a_checkpoint_drafts_as_the_network_it_was_made_from(tmp_path):
    target = random_heads.tiny_target()
    made = LongSpec(target, write(tmp_path, target))
    loaded = LongSpec.load(target, tmp_path)
    for one, other in zip(run(target, Greedy(), loaded), run(target, Greedy(), made), strict=True):
        assert one.stats.accepted_by_depth == other.stats.accepted_by_depth
        assert one.tokens == other.tokens


def test_another_target_is_refused(tmp_path):
    write(tmp_path, random_heads.tiny_target())
    with pytest.raises(BadInput, match="trained for another target: this one has other weights"):
        LongSpec.load(random_heads.tiny_target(seed=1), tmp_path)
