"""The tiny model, and a server on it for the tests that change nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ventris.model
from tests.cli.tiny_model import write_tiny_model
from tests.serve.running import Running, running
from ventris.model import Model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A random float32 model."""
    folder = write_tiny_model(tmp_path_factory.mktemp("serve") / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VENTRIS_CACHE", str(folder.parent / "cache"))
        loaded = ventris.model.load(str(folder), "float32", "torch", "cpu", threads=1)
        loaded.cost_curve()
        return loaded


@pytest.fixture(scope="session")
def server(model: Model) -> Iterator[Running]:
    # A machine that is busy with other tests is no reason to refuse a schema.
    with running(model, compile_seconds=60) as started:
        yield started
