"""The aligned draft model: the contract, training against drafting, the shortlist, the law, checkpoints."""

from __future__ import annotations

import families
import pytest
import random_heads
import torch
from tiny_decoders import LLAMA, random_weights
from trained import LONG, native_place

from ventris.draft.aligned import Aligned, AlignedNetwork
from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.model import DraftModel
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_sketch import TargetSketch, embedding_rows
from ventris.engine.errors import BadInput
from ventris.engine.target import Rows, Scores
from ventris.engine.tree import TokenTree
from ventris.testing import check_drafter, checks
from ventris.testing.checks import law_error, run
from ventris.testing.toy import ToyTarget
from ventris.train.aligned import kept_layers
from ventris.train.first_weights import kept_weights
from ventris.train.first_weights import random_weights as first_weights
from ventris.train.losses import tvd
from ventris.verify.match import Greedy
from ventris.verify.rejection import Rejection


def network_for(target, layers=(0, 3), listed=40, rows="stored") -> AlignedNetwork:
    """A draft model with some of the target's own layers and its head, moved a little."""
    network = untouched(target, layers, listed, rows)
    random_heads.shake(network, 7)
    return network


def untouched(target, layers, listed, rows="stored") -> AlignedNetwork:
    """The same, not moved."""
    family = families.build(target.config.family)
    shortlist = Shortlist(torch.arange(listed), target.vocab_size)
    network = AlignedNetwork(family.config, list(layers), listed, rows)
    network.vocabulary.begin(shortlist, random_heads.target_head(target, shortlist))
    network.begin(kept_weights(family.weights, family.config, list(layers)))
    return network


@pytest.mark.parametrize(
    "settings",
    [{}, {"width": 3, "samples": 0}, {"samples": 3}, {"depth": 1}, {"depth": 9, "samples": 0}],
)
def test_it_keeps_the_contract(settings):
    target = random_heads.tiny_target()
    check_drafter(Aligned(target, network_for(target), **settings), target)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "qwen3", "phi3"])
def test_a_draft_model_that_keeps_all_layers_is_the_target(monkeypatch, family):
    monkeypatch.setattr("ventris.draft.decoder_beside.drafting_dtype", lambda device: torch.float32)
    target = random_heads.tiny_target(family)
    drafter = Aligned(target, untouched(target, range(target.num_layers), target.vocab_size))
    for completion in run(target, Greedy(), drafter, prompts=[LONG, [3, 4]]):
        assert completion.stats.drafted
        assert completion.stats.accepted == completion.stats.drafted


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
def test_drafting_computes_what_was_trained(monkeypatch, family):
    monkeypatch.setattr("ventris.draft.decoder_beside.drafting_dtype", lambda device: torch.float32)
    target = random_heads.tiny_target(family)
    network = network_for(target)
    model = Aligned(target, network).model
    tokens = [1 + i % 50 for i in range(20)]
    scores = model.forward([Rows(model.new_cache(), tokens, range(-1, len(tokens) - 1))])
    embedded = embedding_rows(target, tokens)
    trained = network.vocabulary.one(0, network(torch.stack([embedded, embedded.flip(0)]))[0])
    if not target.config.logit_softcap:
        torch.testing.assert_close(scores.logits[0], trained, rtol=1e-4, atol=1e-4)
    assert scores.logits[0].argsort(descending=True)[:, :5].equal(trained.argsort(descending=True)[:, :5])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_on_the_native_runtime(dtype):
    place = native_place(dtype)
    target, layers = place.target, [0, LLAMA.num_layers - 1]
    network = AlignedNetwork(LLAMA, layers, len(place.shortlist), "stored")
    network.vocabulary.begin(place.shortlist, place.head)
    network.begin(kept_weights(random_weights(LLAMA), LLAMA, layers))
    drafter = Aligned(target, network, width=2)
    check_drafter(drafter, target)
    tokens = [5, 9, 101, 1, 17, 3]
    cache = drafter.model.new_cache()
    [logits] = drafter.model.forward([Rows(cache, tokens, range(-1, 5))]).logits
    trained = network.vocabulary.one(0, network(embedding_rows(target, tokens)[None])[0])
    apart = (logits.softmax(-1) - trained.detach().softmax(-1)).abs().sum(-1)
    assert float(apart.max()) < 0.1


class Listing(ToyTarget):
    """A toy that scores some tokens only."""

    listed = (0, 2)

    def forward(self, batch, taps=()):
        scores = super().forward(batch, taps)
        return Scores([rows[:, list(self.listed)] for rows in scores.logits], scores.hidden)


def listing(draft: ToyTarget, **settings) -> DraftModel:
    """A draft model over two of the three tokens."""
    model = Listing(draft.vocab_size, draft.seed, draft.sharpness, draft.blend)
    return DraftModel(model, vocabulary=Listing.listed, **settings)


@pytest.mark.parametrize("samples", [0, 1])
def test_drafts_of_a_shortlist_leave_the_law_alone(monkeypatch, samples):
    monkeypatch.setattr(checks, "DraftModel", listing)
    assert law_error(Rejection, samples) < 1e-9


def test_another_distribution_written_beside_the_draws_is_noticed(monkeypatch):
    add_draws = TokenTree.add_draws

    def uniform(tree, node, tokens, q):
        return add_draws(tree, node, tokens, torch.full_like(q, 1 / len(q)))

    monkeypatch.setattr(checks, "DraftModel", listing)
    monkeypatch.setattr(TokenTree, "add_draws", uniform)
    assert law_error(Rejection, samples=1) > 1e-3


def test_acceptance_in_sampling_is_the_overlap_that_training_raises():
    target = ToyTarget(vocab_size=6, memory=1, sharpness=1.0)
    draft = ToyTarget(vocab_size=6, memory=1, sharpness=1.0, blend=(2, 0.6))
    done = run(target, Rejection(), DraftModel(draft, depth=1), tokens=1500, temperature=1.0, seed=2)[0]
    drafted_after = [done.prompt[-1], *done.tokens]
    overlaps = torch.stack(
        [1 - tvd(draft.logits([token])[None], target.logits([token])[None]) for token in drafted_after[:-1]]
    )
    # Kept drafts bring a token of the target's own behind them, so fewer positions are drafted at.
    share = done.stats.accepted / done.stats.drafted
    assert share == pytest.approx(float(overlaps.mean()), abs=0.05)


def test_a_target_that_only_transformers_can_run_is_refused(tmp_path):
    target = ToyTarget()
    HeadCheckpoint("aligned", TargetSketch.of(target), {}, {}, {}).save(tmp_path)
    with pytest.raises(BadInput, match="can only be run by transformers"):
        Aligned.load(target, tmp_path)


def test_kept_layers_lie_evenly_from_the_first_to_the_last():
    assert kept_layers(30, 4) == [0, 10, 19, 29]
    assert kept_layers(30, 1) == [0]
    assert kept_layers(4, 4) == [0, 1, 2, 3]
    with pytest.raises(BadInput, match="layers is 5, but the target has 4"):
        kept_layers(4, 5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2"])
def test_random_weights_give_a_model_that_says_something(family):
    target = random_heads.tiny_target(family)
    network = untouched(target, [0, 3], 40)
    network.begin(first_weights(network.config))
    rows = network(torch.randn(2, 9, target.hidden_size))
    assert torch.isfinite(rows).all()
    assert float(rows.std()) > 0.1
