"""LongSpec in training: anchors, offsets, far places, and rows that are taken up from lower layers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import ventris
from ventris.draft.longspec_network import LongSpecNetwork, Queries
from ventris.engine.errors import BadInput
from ventris.engine.target import Rows
from ventris.train import run as training
from ventris.train.first_weights import random_weights
from ventris.train.hidden_states import HiddenStates, rows_from
from ventris.train.longspec import LastLayer, moved_positions, train_longspec
from ventris.train.recorder import from_bits
from ventris.train.settings import LongSpecSettings, TextSettings, read_settings
from ventris.train.texts import distil_texts, read_prompts


@pytest.fixture(scope="module")
def model(tiny_folder):
    return ventris.load(str(tiny_folder), "float32", "torch", "cpu")


def test_anchors_stay_and_the_rest_moves_on_together():
    plain = torch.arange(30).expand(400, -1)
    moved = moved_positions(plain, 4, 8192, torch.Generator().manual_seed(0))
    steps = moved.diff(dim=1)
    assert set((steps != 1).sum(dim=1).tolist()) == {0, 1}  # one gap at most
    stay = (moved == plain).sum(dim=1)
    assert set(stay.tolist()) == {0, 1, 2, 3, 4}
    assert int(moved.max()) < 8192
    assert int(moved[:, -1].max()) > 8000
    assert float(moved[:, -1].float().mean()) == pytest.approx(8192 / 2, rel=0.1)
    again = moved_positions(plain, 4, 8192, torch.Generator().manual_seed(0))
    assert torch.equal(moved, again)


@pytest.mark.parametrize(("anchors", "farthest"), [(0, 0), (4, 0), (4, 30), (4, 12)])
def test_without_room_nothing_moves(anchors, farthest):
    plain = torch.arange(30).expand(50, -1)
    assert torch.equal(moved_positions(plain, anchors, farthest, torch.Generator().manual_seed(0)), plain)


def test_moved_keys_are_those_that_the_target_keeps_there(model):
    """Without anchors a moved text is the text, read from another first position."""
    target, source = model.target, model.source
    tokens = list(range(3, 40))
    last = target.num_layers - 1
    rows = Rows(target.new_cache(), tokens, range(-1, len(tokens) - 1))
    hidden = target.forward([rows], [last]).hidden[last]
    lent = LastLayer(source.weights, source.config, target.device)
    for first in (0, 1000, 15_000):
        cache = target.new_cache()
        cache.begin_at(first)
        target.forward([Rows(cache, tokens, range(-1, len(tokens) - 1))])
        cache.commit(range(len(tokens)))
        keys, values = cache.rows(last)
        found = lent.lent(hidden[None], first + torch.arange(len(tokens))[None])
        torch.testing.assert_close(found.keys[0].transpose(0, 1), keys, rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(found.values[0].transpose(0, 1), values, rtol=1e-2, atol=1e-3)


def far_and_near(model, network):
    """Guesses at the end of a text, by where its first position is."""
    target, source = model.target, model.source
    tokens = list(range(3, 40))
    last = target.num_layers - 1
    rows = Rows(target.new_cache(), tokens, range(-1, len(tokens) - 1))
    hidden = target.forward([rows], [last]).hidden[last][None]
    lent = LastLayer(source.weights, source.config, target.device)

    def guess(positions, at, offset, embedded=target.embedding[tokens][None], kept=None):
        at = torch.tensor([at])
        given = lent.lent(hidden, positions) if kept is None else kept
        return network.guess(embedded, positions, given, Queries(torch.zeros_like(at), at, offset))

    return guess, torch.arange(len(tokens))[None], lent.lent(hidden, torch.arange(len(tokens))[None])


@torch.no_grad()
def test_only_distances_count_and_offsets_hide_the_last_keys(model):
    network = LongSpecNetwork(model.source.config, 16, 4, 40, "stored")
    torch.manual_seed(0)
    network.begin(random_weights(network.config))
    for parameter in network.parameters():
        parameter += 0.3 * torch.randn_like(parameter)
    guess, positions, kept = far_and_near(model, network)
    near = guess(positions, 36, 1)
    torch.testing.assert_close(guess(positions + 9000, 36, 1), near, rtol=1e-2, atol=1e-2)
    # Another distance between text and anchors is another input of the second attention.
    gap = positions + 9000 * (positions >= 4)
    assert float((guess(gap, 36, 1) - near).abs().max()) > 0.02
    for offset in (1, 3):
        same, other = kept.keys.clone(), kept.keys.clone()
        same[:, 37 - offset :] = 50.0
        other[:, 36 - offset] = 50.0
        base = guess(positions, 36, offset)
        assert torch.equal(guess(positions, 36, offset, kept=type(kept)(same, kept.values)), base)
        assert not torch.equal(guess(positions, 36, offset, kept=type(kept)(other, kept.values)), base)
    # With nothing of the target to see, the second attention adds nothing.
    first = guess(positions, 2, 3)
    assert torch.equal(guess(positions, 2, 3, kept=type(kept)(kept.keys + 1, kept.values + 1)), first)


@torch.no_grad()
def test_a_text_of_which_nothing_is_scored_changes_nothing(model):
    """Of a batch only some positions are drawn; of a short answer that may be none."""
    network = LongSpecNetwork(model.source.config, 16, 4, 40, "stored")
    torch.manual_seed(0)
    network.begin(random_weights(network.config))
    _, positions, kept = far_and_near(model, network)
    embedded = model.target.embedding[list(range(3, 40))][None]
    place = torch.tensor([0, 0]), torch.tensor([30, 36])
    alone = network.guess(embedded, positions, kept, Queries(*place, 1))
    lent = type(kept)(kept.keys.repeat(3, 1, 1, 1), kept.values.repeat(3, 1, 1, 1))
    beside = Queries(place[0] + 1, place[1], 1)
    among = network.guess(embedded.repeat(3, 1, 1), positions.repeat(3, 1), lent, beside)
    torch.testing.assert_close(among, alone, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_the_window_hides_what_is_farther(model):
    network = LongSpecNetwork(model.source.config, 4, 4, 40, "stored")
    torch.manual_seed(0)
    network.begin(random_weights(network.config))
    guess, positions, _ = far_and_near(model, network)
    embedded = model.target.embedding[list(range(3, 40))][None]
    base = guess(positions, 30, 1)
    far, near, later = embedded.clone(), embedded.clone(), embedded.clone()
    far[:, :27], near[:, 27], later[:, 31:] = 3.0, 3.0, 3.0
    assert torch.equal(guess(positions, 30, 1, far), base)
    assert torch.equal(guess(positions, 30, 1, later), base)
    assert not torch.equal(guess(positions, 30, 1, near), base)


def test_rows_are_taken_up_from_a_lower_layer(model, prompts, tmp_path):
    target, records = model.target, read_prompts(prompts)
    texts = distil_texts(model, records, tmp_path, TextSettings((0.0,), max_new_tokens=12))
    lower = HiddenStates.beneath(tmp_path, [0, 2], {"target": "x"})
    lower.complete(target, texts)
    wanted = HiddenStates.beneath(tmp_path, [1, 2], {"target": "x"})
    layers = []

    class Counting:
        def __getattr__(self, name):
            return getattr(target, name)

        def run_layers(self, batch, hidden, first, last, taps=()):
            layers.append((first, last))
            return target.run_layers(batch, hidden, first, last, taps)

        def forward(self, batch, taps=()):
            raise AssertionError("the whole target ran")

    [made] = wanted.complete(Counting(), texts, other=lower)
    assert set(layers) == {(0, 1)}
    whole = HiddenStates.beneath(tmp_path / "whole", [1, 2], {}).complete(target, texts)
    one, other = from_bits(np.load(made)), from_bits(np.load(whole[0]))
    # One began with rows rounded to bfloat16, which a layer of a random model makes more of.
    assert float((one - other).norm()) < 0.03 * float(other.norm())
    assert HiddenStates.existing(tmp_path, [0, 2], {"target": "x"}) == lower
    assert HiddenStates.existing(tmp_path, [0, 1], {"target": "x"}) is None


def test_rows_from_a_layer_are_those_of_the_whole_pass(model):
    target, tokens = model.target, [3 + i % 50 for i in range(300)]
    rows = Rows(target.new_cache(), tokens, range(-1, len(tokens) - 1))
    hidden = target.forward([rows], [0, 1, 2]).hidden
    found = rows_from(target, hidden[0], 0, [1, 2])
    torch.testing.assert_close(found[:, 0], hidden[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[:, 1], hidden[2], rtol=1e-4, atol=1e-5)


def trained(given, **changes):
    settings = {**given, "sliding_window": 16, **changes}
    return train_longspec(read_settings(LongSpecSettings, settings), None, "ventris train …")


def test_the_paper_s_second_stage_goes_on_from_the_first(given):
    first = given["out"] + "-first"
    trained(given, out=first, steps=5)
    trained(given, start=first, steps=5, learning_rate=1e-5, farthest=0)
    assert json.loads((Path(given["out"]) / "config.json").read_text())["sizes"]["window"] == 16
    with pytest.raises(BadInput, match="has window 16 in place of 8"):
        trained(given, start=first, sliding_window=8, out=given["out"] + "-other")


def test_another_number_of_anchors_or_far_places_is_another_training(given):
    weights = set()
    for place, change in enumerate(({}, {"anchors": 0}, {"farthest": 0}, {"offsets": 1})):
        out = f"{given['out']}-{place}"
        trained(given, out=out, steps=20, learning_rate=1e-2, **change)
        weights.add((Path(out) / "model.safetensors").read_bytes())
    assert len(weights) == 4


def test_rows_that_are_not_shared_are_found_again(given, monkeypatch):
    monkeypatch.setattr(training, "learnt_layers", lambda target: (0, 2))
    trained(given, steps=3)
    trained(given, steps=3, out=given["out"] + "-again")
