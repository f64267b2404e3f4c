from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """Every test has a cache folder of its own, except those of the real model."""
    if "embedded_path" in request.fixturenames:
        return tmp_path
    folder = tmp_path / "cache"
    monkeypatch.setenv("VENTRIS_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


@pytest.fixture(scope="session")
def embedded_path() -> Path:
    """The embedded model if an earlier run has stored it; tests never download."""
    from ventris.models.cache_folder import cache_folder
    from ventris.models.embedded import EMBEDDED_NAME, FILE_NAME, is_verified

    path = cache_folder() / "models" / EMBEDDED_NAME / FILE_NAME
    if not is_verified(path):
        pytest.skip("the embedded model is not in the cache; load smollm2-135m-instruct once to have it")
    return path
