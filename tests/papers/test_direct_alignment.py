"""The reproduction of direct alignment, on a tiny model with a draft model that nobody trained."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ventris.papers.direct_alignment import reproduce_direct_alignment
from ventris.train.aligned import train_aligned
from ventris.train.settings import AlignedSettings, read_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from tiny_model import write_tiny_model


@pytest.mark.parametrize("start", ["kept", "random"])
def test_every_loss_on_every_task(tmp_path, start):
    tiny = str(write_tiny_model(tmp_path / "tiny"))
    near = [{"prompt": f"say {number} and {number % 7}"} for number in range(20)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, near)))
    asked = [{"prompt": "abc", "category": "near"}, {"prompt": "xyz", "category": "far"}]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)))
    training = {"cache": str(tmp_path / "texts"), "max_new_tokens": 16, "window": 64, "threads": 1}
    first = {
        "model": tiny,
        "dtype": "float32",
        "data": str(tmp_path / "train.jsonl"),
        "out": str(tmp_path / "first"),
        "start": start,
        "layers": 1,
        "shortlist": 40,
        "steps": 5,
        **training,
    }
    train_aligned(read_settings(AlignedSettings, first))
    found = reproduce_direct_alignment(
        str(tmp_path / "train.jsonl"),
        str(tmp_path / "first"),
        losses=("kl", "tvd++"),
        depths=(2,),
        steps=3,
        training={**training, "held_out": 0.1},
        data=str(tmp_path / "asked.jsonl"),
        max_new_tokens=8,
        model=tiny,
        dtype="float32",
        kernels="torch",
    )
    assert found.slug == "direct-alignment"
    assert [row.name.partition(";")[0] for row in found.ours] == [
        f"tokens a call after {loss}, {task}, 2 drafted"
        for loss in ("kl", "tvd++")
        for task in ("near", "far")
    ]
    assert all(row.value >= 1 and row.baseline >= 1 for row in found.ours)
    # One layer of two, and 40 listed tokens of 99, of 16 columns each.
    layer = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 32 + 2 * 16
    assert f"{(layer + 640) / (2 * layer + 99 * 16):.3f} of the target's weights" in found.notes[-1]
