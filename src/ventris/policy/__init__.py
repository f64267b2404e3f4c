"""Policies: how much to draft, and when to spend more?"""

from ventris.policy.acceptance_threshold import AcceptanceThreshold
from ventris.policy.batch_latency import BatchLatency
from ventris.policy.confidence_stop import ConfidenceStop
from ventris.policy.cost_curve import CostCurve, measure
from ventris.policy.fixed import Fixed
from ventris.policy.goodput import Goodput
from ventris.policy.smartspec import SmartSpec

__all__ = [
    "AcceptanceThreshold",
    "BatchLatency",
    "ConfidenceStop",
    "CostCurve",
    "Fixed",
    "Goodput",
    "SmartSpec",
    "measure",
]
