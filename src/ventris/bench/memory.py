"""How far a run's memory rose above what was there before it."""

from __future__ import annotations

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


def _kilobytes(name: str) -> int | None:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return None
