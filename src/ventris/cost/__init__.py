"""What a pass of the target costs on this machine: the figures that policies plan with."""

from ventris.cost.batch_latency import BatchLatency
from ventris.cost.curve import CostCurve, measure

__all__ = ["BatchLatency", "CostCurve", "measure"]
