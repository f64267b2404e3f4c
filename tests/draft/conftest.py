"""One torch thread; tiny models from the decoders' own tests, and a pair with two vocabularies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import ventris

torch.set_num_threads(1)
for folder in ("torch_decoder", "native"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A target and a draft model with another vocabulary."""
    from two_vocabularies import write_draft_model, write_tiny_model

    root = tmp_path_factory.mktemp("pair")
    return write_tiny_model(root / "target"), write_draft_model(root / "draft")


@pytest.fixture(scope="session")
def model(folders) -> ventris.Model:
    """The target of that pair."""
    return ventris.load(str(folders[0]), "float32", "torch", "cpu", threads=1)
