"""The tiny model for other people's programs."""

from __future__ import annotations

from tests.batch.conftest import folder, model

__all__ = ["folder", "model"]
