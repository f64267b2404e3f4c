"""How long a step of a batch takes: the latency model that SmartSpec predicts with."""

from __future__ import annotations

from dataclasses import dataclass

from ventris.cost.curve import CostCurve


@dataclass(frozen=True, slots=True)
class BatchLatency:
    """T(nodes, context): seconds of one pass over a batch, as Liu et al. 2024 (arXiv 2406.14066) have it.

    Loading the caches costs time in proportion to ``context``; computing and loading the weights depends on
    ``nodes``. The paper takes a straight line there. Here it is the measured curve, because kernels work on
    blocks and the line misses where the cost begins to rise, which is what a draft length depends on.

    Attributes:
        curve: T(n) with ``context`` cached rows.
        context: Cached rows behind the curve.
        context_seconds: Seconds for every further cached row, of all requests together.
    """

    curve: CostCurve
    context: int = 0
    context_seconds: float = 0.0

    def __call__(self, nodes: int, context: int) -> float:
        """Seconds of a pass over ``nodes`` rows of all requests with ``context`` cached rows behind them."""
        return self.curve(nodes) + self.context_seconds * max(context - self.context, 0)

    @classmethod
    def between(cls, short: CostCurve, near: int, long: CostCurve, far: int) -> BatchLatency:
        """The model of two profiles, one behind ``near`` cached rows and one behind ``far``.

        Least squares for the slope, with a level of its own for each node count of the longer profile.
        """
        rises = [long(size) - short(size) for size in long.sizes]
        slope = sum(rises) / (len(rises) * (far - near)) if far > near else 0.0
        return cls(short, near, max(slope, 0.0))
