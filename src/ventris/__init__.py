"""Ventris: decoding parts that combine in one loop, with a stated guarantee."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ventris.engine.errors import BadInput, BrokenModel, Incompatible, VentrisError
    from ventris.engine.request import Completion, Guarantee
    from ventris.hf import hf_generate
    from ventris.model import Chat, Model, Piece, load
    from ventris.prompts import Prompt

_HOME = {
    "BadInput": "ventris.engine.errors",
    "BrokenModel": "ventris.engine.errors",
    "Chat": "ventris.model",
    "Completion": "ventris.engine.request",
    "Guarantee": "ventris.engine.request",
    "Incompatible": "ventris.engine.errors",
    "Model": "ventris.model",
    "Piece": "ventris.model",
    "Prompt": "ventris.prompts",
    "VentrisError": "ventris.engine.errors",
    "hf_generate": "ventris.hf",
    "load": "ventris.model",
}

__all__ = [
    "BadInput",
    "BrokenModel",
    "Chat",
    "Completion",
    "Guarantee",
    "Incompatible",
    "Model",
    "Piece",
    "Prompt",
    "VentrisError",
    "hf_generate",
    "load",
]


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds; `ventris --help` and `import ventris` should not.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ventris' has no attribute {name!r}")
