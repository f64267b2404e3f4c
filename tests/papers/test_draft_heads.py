"""The reproductions of Medusa and Hydra, on a tiny model with heads that nobody trained."""

from __future__ import annotations

import pytest
import torch

import ventris
from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.eagle_network import EagleNetwork, eagle_taps
from ventris.draft.hydra_heads import HydraHeads
from ventris.draft.medusa_heads import MedusaHeads
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.draft.target_sketch import TargetSketch
from ventris.models.low_rank import LowRankChanges, untied
from ventris.models.source import resolve
from ventris.models.target_folder import write_target_folder
from ventris.papers.draft_heads import full_tree, reproduce_eagle3, reproduce_hydra, reproduce_medusa

ACCURACIES = [[0.5, 0.2, 0.1], [0.4, 0.2, 0.1]]


@pytest.fixture(scope="module")
def given(tmp_path_factory, tiny_settings, tiny_model) -> dict[str, object]:
    """Settings of a reproduction, with a checkpoint of either kind beside the model."""
    folder = tmp_path_factory.mktemp("reproduce")
    target = tiny_model.target
    shortlist = Shortlist(torch.arange(40), target.vocab_size)
    head = TargetHead.of(tiny_model.source, shortlist)
    tree = {"paths": [[0], [0, 0], [1]], "values": [0.5, 0.2, 0.1]}
    sizes = {"heads": 2, "hidden": target.hidden_size, "shortlist": 40, "rows": "tied"}
    networks = {
        "medusa": (MedusaHeads(**sizes), {"accuracies": ACCURACIES}),
        "hydra": (HydraHeads(**sizes), {"tree": tree}),
    }
    for method, (network, measured) in networks.items():
        network.vocabulary.begin(shortlist, head)
        sketch, tensors = TargetSketch.of(target), network.state_dict()
        HeadCheckpoint(method, sketch, network.sizes, measured, tensors).save(folder / method)
    eagle = EagleNetwork(PrefixSizes.of(target.config).stored(), eagle_taps(target.num_layers), 40)
    eagle.begin(shortlist, head)
    sketch, measured = TargetSketch.of(target), {"acceptance": [0.5, 0.25]}
    HeadCheckpoint("eagle", sketch, eagle.sizes, measured, eagle.state_dict()).save(folder / "eagle")
    return {"folder": folder, **tiny_settings}


def test_medusa(given):
    settings = {key: value for key, value in given.items() if key != "folder"}
    found = reproduce_medusa(checkpoint=str(given["folder"] / "medusa"), nodes=6, **settings)
    assert found.slug == "medusa"
    assert [row.value for row in found.ours[:2]] == [0.5, 0.4]
    searched = found.ours[2]
    assert searched.value >= 1
    assert searched.baseline >= 1
    assert found.ours[3].unit == "x"
    assert found.ours[3].value > 0
    assert min(found.ours[4].value, found.ours[4].baseline) >= 1
    assert not any("/" in note for note in found.notes[1:])


def test_medusa_2_stands_beside_medusa_1(given, tmp_path):
    settings = {key: value for key, value in given.items() if key != "folder"}
    source = resolve(settings["model"])
    low_rank = LowRankChanges(source.config, 4, 4.0, 0.0)
    with torch.no_grad():
        for parameter in low_rank.up.parameters():
            parameter.fill_(0.02)
    write_target_folder(tmp_path, untied(source.config), low_rank.merged(source.weights), source.tokenizer)
    tuned = ventris.load(str(tmp_path), "float32", "torch", "cpu").target
    shortlist = Shortlist(torch.arange(40), tuned.vocab_size)
    network = MedusaHeads(heads=2, hidden=tuned.hidden_size, shortlist=40, rows="stored")
    network.vocabulary.begin(shortlist, TargetHead.of(resolve(tmp_path), shortlist))
    quality = {"quality": {"perplexity_before": 2.0, "perplexity_after": 2.01}}
    measured = {"accuracies": ACCURACIES}
    HeadCheckpoint(
        "medusa", TargetSketch.of(tuned), network.sizes, measured, network.state_dict(), quality
    ).save(tmp_path / "medusa")
    found = reproduce_medusa(
        checkpoint=str(given["folder"] / "medusa"), nodes=6, tuned=str(tmp_path), **settings
    )
    passes, perplexity, speed = found.ours[5:]
    assert passes.baseline == found.ours[2].value
    assert passes.value >= 1
    assert (perplexity.value, perplexity.baseline) == (2.01, 2.0)
    assert speed.value > 0


def test_hydra(given):
    settings = {key: value for key, value in given.items() if key != "folder"}
    folder = given["folder"]
    found = reproduce_hydra(
        checkpoint=str(folder / "hydra"), medusa=str(folder / "medusa"), nodes=4, **settings
    )
    passes, hydra, medusa, between = found.ours
    assert min(passes.value, passes.baseline) >= 1
    assert min(hydra.value, medusa.value, between.value) > 0


def test_eagle3(given):
    settings = {key: value for key, value in given.items() if key != "folder"}
    folder = given["folder"]
    checkpoints = {name: str(folder / name) for name in ("medusa", "hydra")}
    eagle = str(folder / "eagle")
    found = reproduce_eagle3(checkpoint=eagle, untested=eagle, nodes=4, **checkpoints, **settings)
    assert [row.value for row in found.ours[:2]] == [0.5, 0.25]
    hydra, medusa, itself, speed = found.ours[2:]
    assert min(hydra.baseline, medusa.baseline) >= 1
    assert itself.value == itself.baseline == hydra.value
    assert speed.value > 0


def test_a_full_tree_has_whole_levels():
    tree = full_tree(ACCURACIES, 9)
    assert sorted(tree.paths) == [(0,), (0, 0), (0, 1), (1,), (1, 0), (1, 1)]
    assert dict(zip(tree.paths, tree.values, strict=True))[0, 1] == pytest.approx(0.5 * 0.2)
    assert full_tree(ACCURACIES, 5).paths == [(0,), (1,)]
