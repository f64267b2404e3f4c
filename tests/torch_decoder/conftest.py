"""Shared by the tests of the torch decoder: one thread, and one build of each tiny model."""

from __future__ import annotations

import functools

import families
import pytest
import torch

from ventris.models.torch_decoder import TorchDecoder

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def family():
    """A function from a family's name to its tiny model."""
    return functools.cache(families.build)


@pytest.fixture(scope="session")
def decoder(family):
    """A function from a family's name (and a dtype) to its decoder."""

    @functools.cache
    def build(name: str, dtype: torch.dtype = torch.float32) -> TorchDecoder:
        return TorchDecoder(family(name).config, family(name).weights, dtype)

    return build
