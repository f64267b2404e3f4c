"""The reproduction of Chimera, on a tiny model with drafters that nobody trained."""

from __future__ import annotations

from pathlib import Path

import torch

import ventris
from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.chimera_network import ChimeraNetwork, LeftOut
from ventris.draft.head_tree import grow_from_accuracies
from ventris.draft.medusa_heads import MedusaHeads
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.draft.target_sketch import TargetSketch
from ventris.papers.chimera import reproduce_chimera

ACCURACIES = [[0.5, 0.2, 0.1], [0.4, 0.2, 0.1]]


def write(folder: Path, model: ventris.Model, left_out: LeftOut | None) -> str:
    """Chimera's network with random weights, or Medusa heads."""
    target = model.target
    shortlist = Shortlist(torch.arange(target.vocab_size), target.vocab_size)
    sizes = PrefixSizes.of(target.config).stored()
    torch.manual_seed(0)
    if left_out is None:
        network = MedusaHeads(heads=2, hidden=target.hidden_size, shortlist=len(shortlist), rows="tied")
        method = "medusa"
        measured = {"accuracies": ACCURACIES}
    else:
        network, method = ChimeraNetwork(2, sizes, len(shortlist), "tied", left_out), "chimera"
        measured = {"tree": grow_from_accuracies(ACCURACIES, 9).stored()}
    network.vocabulary.begin(shortlist, TargetHead.of(model.source, shortlist))
    sketch, tensors = TargetSketch.of(target), network.state_dict()
    HeadCheckpoint(method, sketch, network.sizes, measured, tensors).save(folder)
    return str(folder)


def test_medusa_ablations_and_memo(tmp_path, tiny_settings, tiny_model):
    found = reproduce_chimera(
        write(tmp_path / "whole", tiny_model, "nothing"),
        write(tmp_path / "no-trigrams", tiny_model, "trigrams"),
        write(tmp_path / "no-context", tiny_model, "context"),
        write(tmp_path / "plain", tiny_model, "nothing"),
        write(tmp_path / "medusa", tiny_model, None),
        nodes=6,
        **tiny_settings,
    )
    rows = {row.name: row for row in found.ours}
    against = {name.rpartition("against ")[2]: row for name, row in rows.items() if "against" in name}
    assert sorted(against) == ["Medusa-1", "no context", "no distillation", "no trigrams"]
    assert all(row.value >= 1 and row.baseline >= 1 for row in against.values())
    # The weights of these two are the same.
    assert against["no distillation"].value == against["no distillation"].baseline
    assert 0 < rows["trigrams that were remembered"].value < 1
    assert rows["speed with chimera, as a multiple of plain decoding's"].value > 0
