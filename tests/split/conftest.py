"""One torch thread; tiny models from the decoders' own tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
for folder in ("torch_decoder", "native", "draft", "cli", "split"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

from pair import Pair, connected  # noqa: E402


@pytest.fixture
def pair() -> Iterator[Callable[..., Pair]]:
    """A function from a family's name to its model in two halves; their connections end with the test."""
    made: list[Pair] = []

    def make(name: str, cut: int = 2, **settings: object) -> Pair:
        made.append(connected(name, cut, **settings))
        return made[-1]

    yield make
    for each in made:
        each.target.close()
        each.thread.join(10)
        assert not each.thread.is_alive()
