"""The reproduction of LongSpec, on a tiny model with layers that nobody trained."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import ventris
from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.eagle_network import EagleNetwork, eagle_taps
from ventris.draft.longspec_network import LongSpecNetwork
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.draft.target_sketch import TargetSketch
from ventris.engine.errors import BadInput
from ventris.papers.longspec import reproduce_longspec
from ventris.train.first_weights import passing_weights

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny model with a text, and a checkpoint of either drafter."""
    folder = tmp_path_factory.mktemp("longspec")
    tiny = str(write_tiny_model(folder / "tiny"))
    model = ventris.load(tiny, "float32", "torch", "cpu")
    config, shortlist = model.source.config, Shortlist(torch.arange(40), model.target.vocab_size)
    head = TargetHead.of(model.source, shortlist)
    torch.manual_seed(0)
    block = LongSpecNetwork(config, 16, 4, 40, "stored")
    block.vocabulary.begin(shortlist, head)
    block.begin(passing_weights(block.config, head))
    layer = EagleNetwork(PrefixSizes.of(config).stored(), eagle_taps(config.num_layers), 40)
    layer.begin(shortlist, head)
    sketch = TargetSketch.of(model.target)
    for method, network in (("longspec", block), ("eagle", layer)):
        HeadCheckpoint(method, sketch, network.sizes, {}, network.state_dict()).save(folder / method)
    (folder / "text.txt").write_text("def f(x):\n    return x + 1\n" * 60)
    return {name: str(folder / name) for name in ("tiny", "longspec", "eagle", "text.txt")}


def test_memory_is_constant_and_the_controls_is_not(written):
    found = reproduce_longspec(
        written["longspec"],
        written["eagle"],
        contexts=[200, 400, 800],
        data=written["text.txt"],
        unmoved=written["longspec"],
        max_new_tokens=8,
        model=written["tiny"],
        dtype="float32",
        kernels="torch",
    )
    rows = {row.name: row for row in found.ours}
    for length in (400, 800):
        own = rows[f"memory of longspec's own behind {length} tokens, against 200"]
        assert own.value == own.baseline > 0
        growing = rows[f"memory of eagle's own behind {length} tokens, against 200"]
        assert growing.value > 1.5 * growing.baseline
        for name in ("longspec", "eagle", "longspec-unmoved"):
            speed = rows[
                f"speed as a multiple of plain decoding's with {name} behind {length} tokens, against 200"
            ]
            assert speed.value > 0
            assert speed.baseline > 0
            assert rows[f"tokens a pass with {name} behind {length} tokens, against 200"].value >= 1
        assert rows[f"tree attention in two parts behind {length} tokens, against one masked call"].value > 0


def test_texts_and_contexts_are_checked(written):
    given = {"model": written["tiny"], "dtype": "float32", "kernels": "torch", "max_new_tokens": 8}
    folders = {"checkpoint": written["longspec"], "control": written["eagle"]}
    for change, message in (
        ({"contexts": [200]}, r"contexts is \[200\], but at least two lengths"),
        (
            {"data": written["text.txt"], "contexts": [200, 4000]},
            "text.txt has 1620 tokens, but 4000 are needed",
        ),
        ({"data": "nowhere.txt"}, "cannot read the text in nowhere.txt"),
    ):
        with pytest.raises(BadInput, match=message):
            reproduce_longspec(**folders, **given, **change)
