"""The costs of a target on this machine, measured once and kept in the cache folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from ventris.cost.batch_latency import BatchLatency
from ventris.cost.curve import CONTEXT, SIZES, CostCurve, fitting_sizes, measure
from ventris.engine.errors import BadInput
from ventris.engine.target import Target
from ventris.models.cache_folder import cache_folder, written_whole

LONG_CONTEXT = 640
"""Context of the second profile, which tells what a cached row costs."""

LONG_SIZES = (1, 4, 16)
"""Node counts of the second profile."""


def measured_curve(
    target: Target,
    key: str | None,
    again: bool = False,
    progress: Callable[[str, float | None], None] | None = None,
    sizes: Sequence[int] = SIZES,
    context: int = CONTEXT,
) -> CostCurve:
    """Read the curve of the model ``key`` on this machine, or measure and keep it.

    Args:
        key: Fingerprint of the model; ``None`` measures without keeping.
        again: Measure even if a curve is known.
        progress: Told which share of the measurement is done.
        sizes, context: As for :func:`~ventris.cost.curve.measure`.
    """
    path = None if key is None else _path(target, key, context)
    if path is not None and not again:
        known = _read(path)
        # A release that measures other sizes wants them measured.
        if known is not None and list(known.sizes) == fitting_sizes(target, sizes, context):
            return known

    def told(done: int, rounds: int) -> None:
        if progress is not None:
            progress("measuring the cost of larger steps", done / rounds)

    curve = measure(target, sizes, progress=told, context=context)
    if path is not None:
        try:
            with written_whole(path) as temporary:
                temporary.write_text(json.dumps({"sizes": list(curve.sizes), "seconds": list(curve.seconds)}))
        except OSError:
            # A full disk costs a second at the next start, nothing else.
            return curve
    return curve


def measured_latency(target: Target, key: str | None, curve: CostCurve, again: bool = False) -> BatchLatency:
    """T(nodes, context) of the model ``key`` on this machine: its curve, and another behind a longer prompt.

    A target whose context is too short for the longer prompt is taken to cost the same at any length.
    """
    far = min(LONG_CONTEXT, target.context_length - 2 * LONG_SIZES[-1])
    if far < 2 * CONTEXT:
        return BatchLatency(curve, CONTEXT)
    long = measured_curve(target, key, again, sizes=LONG_SIZES, context=far)
    return BatchLatency.between(curve, CONTEXT, long, far)


def _path(target: Target, key: str, context: int) -> Path:
    machine = f"{platform.node()}-{platform.machine()}"
    # A release with other kernels has other costs.
    kind = "-".join(str(getattr(target, name, "")) for name in ("kernel", "build", "dtype", "threads"))
    if target.device.type != "cpu":
        # One machine may have a model on its processor and on its GPU.
        kind += f"-{target.device.type}"
    behind = "" if context == CONTEXT else f"-{context}"
    return cache_folder() / "curves" / f"{key}-{kind}-{machine}{behind}.json"


def _read(path: Path) -> CostCurve | None:
    try:
        stored = json.loads(path.read_text())
        return CostCurve(tuple(map(int, stored["sizes"])), tuple(map(float, stored["seconds"])))
    except (OSError, ValueError, KeyError, TypeError, BadInput):
        return None
