"""Shared settings: one torch thread (the machine is small), and a deterministic hypothesis profile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from ventris.cost import measured
from ventris.models.cache_folder import cache_folder

torch.set_num_threads(1)
settings.register_profile(
    "ventris", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ventris")


@pytest.fixture(scope="session", autouse=True)
def curves_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the cost curves of hundreds of random models out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")

    def chosen_folder() -> Path:
        return cache_folder() if "VENTRIS_CACHE" in os.environ else folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "cache_folder", chosen_folder)
        yield
