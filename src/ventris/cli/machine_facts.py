"""What this machine is and what is kept on it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from ventris.bench.machine import available_cores, memory_bytes, processor, system
from ventris.models.cache_folder import cache_folder


def machine_facts() -> dict[str, Any]:
    """Processor, memory, torch, and which runtimes work here."""
    return {
        "processor": processor(),
        "cores": available_cores(),
        "memory_bytes": memory_bytes(),
        "system": system(),
        "torch": version("torch"),
        "native_kernels": _native_kernels(),
        "cuda": _cuda(),
    }


def cache_facts() -> dict[str, Any]:
    """Where models, compiled kernels and measurements are kept, and how much that is."""
    folder = cache_folder()
    size = 0
    for file in folder.rglob("*"):
        try:
            size += file.stat().st_size if file.is_file() else 0
        except OSError:
            # Another process removed it meanwhile.
            continue
    return {"folder": str(folder), "size_bytes": size}


def _native_kernels() -> str:
    from ventris.models.native.build import NativeUnavailable, load_library

    try:
        return str(load_library().ventris_kernel().decode())
    except NativeUnavailable as reason:
        return f"not available: {reason}"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "not available"
    return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
