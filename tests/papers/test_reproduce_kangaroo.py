"""The reproduction of Kangaroo, on a tiny model with adapters that nobody trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ventris
from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.kangaroo import KangarooNetwork
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.draft.target_sketch import TargetSketch
from ventris.engine.errors import BadInput
from ventris.papers.kangaroo import all_accepted, reproduce_kangaroo
from ventris.train.first_weights import passing_weights


def write(folder: Path, model: ventris.Model, exit_layer: int, feed_forward: bool) -> str:
    """An adapter that adds nothing to the rows of its layer."""
    target = model.target
    shortlist = Shortlist(torch.arange(target.vocab_size), target.vocab_size)
    head = TargetHead.of(model.source, shortlist)
    network = KangarooNetwork(target.config, exit_layer, len(shortlist), "tied", feed_forward)
    network.vocabulary.begin(shortlist, head)
    network.begin(passing_weights(network.config, head))
    tensors = network.state_dict()
    HeadCheckpoint("kangaroo", TargetSketch.of(target), network.sizes, {}, tensors).save(folder)
    return str(folder)


def test_stop_adapter_and_exit_layers(tmp_path, tiny_settings, tiny_model):
    found = reproduce_kangaroo(
        write(tmp_path / "first", tiny_model, 1, False),
        write(tmp_path / "more", tiny_model, 1, True),
        [write(tmp_path / "last", tiny_model, 2, False)],
        depth=3,
        confidence=0.9,
        **tiny_settings,
    )
    rows = {row.name: row for row in found.ours}
    drafted = rows["drafted tokens a deep pass, likewise"]
    assert drafted.value < drafted.baseline
    assert all(row.value > 0 for row in found.ours if row.unit == "x")
    # An adapter that adds nothing is no adapter; behind the last layer it is the target.
    bare = rows["tokens a deep pass, fixed length, against no adapter"]
    assert bare.value == bare.baseline
    assert [rows[f"first {n} drafts all accepted (CTAR), exit at layer 2"].value for n in (1, 2)] == [1, 1]
    for layer in (1, 2):
        assert f"speed with the exit at layer {layer}, as a multiple of plain decoding's" in rows
    # Three drafts that the target itself made, and its own token.
    assert rows["tokens a deep pass, fixed length, exit at layer 2"].value > 2
    assert rows["tokens a deep pass, fixed length, exit at layer 1"].value == bare.value


def test_exits_that_cannot_be_told_apart_are_refused(tmp_path, tiny_settings, tiny_model):
    first, again = (write(tmp_path / name, tiny_model, 1, False) for name in ("first", "again"))
    with pytest.raises(BadInput, match="two of these adapters exit at layer 1"):
        reproduce_kangaroo(first, exits=[again], **tiny_settings)
    with pytest.raises(BadInput, match="give a list of folders"):
        reproduce_kangaroo(first, exits=again, **tiny_settings)


def test_windows_count_from_the_first_draft():
    class Done:
        def __init__(self, proposed, accepted):
            self.stats = type("Stats", (), {"proposed_by_depth": proposed, "accepted_by_depth": accepted})

    assert all_accepted([Done([6, 4], [4, 1]), Done([2], [2]), Done([], [])]) == [6 / 8, 1 / 8]
