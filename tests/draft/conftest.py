"""One torch thread; tiny models from the decoders' own tests."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
for folder in ("torch_decoder", "native"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
