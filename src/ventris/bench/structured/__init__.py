"""``ventris bench structured``: what guaranteed form is worth and what it costs.

    from ventris.bench.structured import StructuredSettings, run_structured

    report = run_structured(StructuredSettings(protocol="mask"))

The names below are imported when they are first used: settings and help texts need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ventris.bench.structured.record import StructuredReport
    from ventris.bench.structured.run import run_structured
    from ventris.bench.structured.settings import StructuredSettings, read_structured_settings
    from ventris.bench.structured.show import print_structured, write_structured

_HOME = {
    "StructuredReport": "record",
    "StructuredSettings": "settings",
    "print_structured": "show",
    "read_structured_settings": "settings",
    "run_structured": "run",
    "write_structured": "show",
}

__all__ = [
    "StructuredReport",
    "StructuredSettings",
    "print_structured",
    "read_structured_settings",
    "run_structured",
    "write_structured",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
