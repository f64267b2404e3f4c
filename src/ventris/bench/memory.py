"""How far memory rises, and bounds for it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Watches the resident memory of this process; gives ``None`` where the system cannot tell."""

    def __init__(self) -> None:
        try:
            # Linux forgets the old peak when told so.
            _CLEAR.write_text("5")
            self._before = _kilobytes("VmRSS")
        except OSError:
            self._before = None

    def growth(self) -> int | None:
        """Bytes from the beginning to the highest point since."""
        if self._before is None:
            return None
        peak = _kilobytes("VmHWM")
        return None if peak is None else max(peak - self._before, 0) * 1024


def limit_address_space(further: int) -> None:
    """Let this process take ``further`` bytes of address space beyond what it holds now, where that works."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (held + further, most))


def peak_of_group(leader: int) -> int | None:
    """Highest resident bytes of a process group, its members' peaks added up; ``None`` where unknown."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ProcessLookupError, ValueError):
            if os.getpgid(int(folder.name)) == leader:
                total += (_kilobytes("VmHWM", folder / "status") or 0) * 1024
    return total or None


def _kilobytes(name: str, status: Path = _STATUS) -> int | None:
    for line in status.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return None
