"""The cost curve of a target on this machine, measured once and kept in the cache folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

from ventris.engine.target import Target
from ventris.models.cache_folder import cache_folder, written_whole
from ventris.policy.cost_curve import CostCurve, measure


def measured_curve(
    target: Target,
    key: str | None,
    again: bool = False,
    progress: Callable[[str, float | None], None] | None = None,
) -> CostCurve:
    """Read the curve of the model ``key`` on this machine, or measure and keep it.

    Args:
        key: Fingerprint of the model; ``None`` measures without keeping.
        again: Measure even if a curve is known.
        progress: Told which share of the measurement is done.
    """
    path = None if key is None else _path(target, key)
    if path is not None and not again:
        known = _read(path)
        if known is not None:
            return known

    def told(done: int, rounds: int) -> None:
        if progress is not None:
            progress("measuring the cost of larger steps", done / rounds)

    curve = measure(target, progress=told)
    if path is not None:
        try:
            with written_whole(path) as temporary:
                temporary.write_text(json.dumps({"sizes": list(curve.sizes), "seconds": list(curve.seconds)}))
        except OSError:
            # A full disk costs a second at the next start, nothing else.
            return curve
    return curve


def _path(target: Target, key: str) -> Path:
    machine = f"{platform.node()}-{platform.machine()}"
    kind = "-".join(str(getattr(target, name, "")) for name in ("kernel", "dtype", "threads"))
    return cache_folder() / "curves" / f"{key}-{kind}-{machine}.json"


def _read(path: Path) -> CostCurve | None:
    try:
        stored = json.loads(path.read_text())
        return CostCurve(tuple(map(int, stored["sizes"])), tuple(map(float, stored["seconds"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None
