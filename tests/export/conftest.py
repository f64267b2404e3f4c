"""Random heads for tiny targets and tiny models in files, from the tests of drafters and of loading."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
for folder in ("torch_decoder", "draft", "loading"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
