"""The reproduction of Falcon, on a tiny model with drafters that nobody trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ventris
from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.falcon_network import FalconNetwork
from ventris.draft.head_tree import StaticTree, grow_from_accuracies
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.draft.target_sketch import TargetSketch
from ventris.papers.falcon import chain, reproduce_falcon
from ventris.train.first_weights import passing_weights


def write(folder: Path, model: ventris.Model, block: int, lstm: bool, acceptance: list[float]) -> str:
    """A drafter with random weights."""
    target = model.target
    shortlist = Shortlist(torch.arange(target.vocab_size), target.vocab_size)
    head = TargetHead.of(model.source, shortlist)
    torch.manual_seed(0)
    network = FalconNetwork(PrefixSizes.of(target.config).stored(), block, len(shortlist), "tied", lstm)
    network.vocabulary.begin(shortlist, head)
    network.begin(passing_weights(network.config, head))
    measured = {"tree": grow_from_accuracies([[0.6, 0.3]] * 4, 20).stored()}
    training = {"held_out_acceptance": acceptance, "steps": 7}
    tensors, sketch = network.state_dict(), TargetSketch.of(target)
    HeadCheckpoint("falcon", sketch, network.sizes, measured, tensors, training).save(folder)
    return str(folder)


def test_glances_passes_tree_and_lstm(tmp_path, tiny_settings, tiny_model):
    found = reproduce_falcon(
        write(tmp_path / "first", tiny_model, 2, True, [0.5, 0.4]),
        write(tmp_path / "plain", tiny_model, 2, True, [0.5, 0.2]),
        write(tmp_path / "single", tiny_model, 1, True, [0.5, 0.4]),
        write(tmp_path / "linear", tiny_model, 2, False, [0.5, 0.4]),
        nodes=12,
        **tiny_settings,
    )
    rows = {row.name: row for row in found.ours}
    second = rows["guess at depth 2 right, those above it being right (held-out text), against no glances"]
    assert (second.value, second.baseline) == (0.4, 0.2)
    # The weights of these two are the same.
    without = rows["tokens a pass with 12 nodes, against training without glances"]
    assert without.value == without.baseline >= 1
    passes = rows["drafter passes a proposal, likewise"]
    assert (passes.value, passes.baseline) == (2, 4)
    assert rows["tokens a pass with 12 nodes, against no LSTM"].baseline >= 1
    tree = rows["tokens a pass with 12 nodes, against a chain of the same height"]
    assert tree.value >= tree.baseline
    assert rows["speed, as a multiple of plain decoding's, against one token a pass"].value > 0
    assert found.notes[-1].endswith("7, 7, 7, 7")


def test_the_chain_of_a_tree():
    tree = StaticTree([(0,), (1,), (0, 0), (0, 1), (0, 0, 0)], [0.5, 0.3, 0.25, 0.1, 0.05])
    straight = chain(tree)
    assert list(straight.paths) == [(0,), (0, 0), (0, 0, 0)]
    assert straight.values == pytest.approx([0.5, 0.25, 0.05])
