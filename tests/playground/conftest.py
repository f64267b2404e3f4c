"""A server with the page, a browser on it, and a folder for its pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.playground.browser import Browser
from tests.serve.conftest import model, server

__all__ = ["model", "server"]


@pytest.fixture(scope="session")
def session_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def browser(session_browser: Browser) -> Iterator[Browser]:
    """The browser; afterwards it must have had nothing to complain about."""
    session_browser.faults.clear()
    session_browser.shape(1360, 900)
    yield session_browser
    session_browser.run("1")
    assert session_browser.faults == []


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: ``VENTRIS_PICTURES``, or among pytest's temporary files."""
    chosen = os.environ.get("VENTRIS_PICTURES")
    folder = Path(chosen) if chosen else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
