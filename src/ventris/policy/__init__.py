"""Policies: how much to draft, and when to spend more?"""

from ventris.policy.acceptance_threshold import AcceptanceThreshold
from ventris.policy.confidence_stop import ConfidenceStop
from ventris.policy.fixed import Fixed
from ventris.policy.goodput import Goodput
from ventris.policy.smartspec import SmartSpec

__all__ = [
    "AcceptanceThreshold",
    "ConfidenceStop",
    "Fixed",
    "Goodput",
    "SmartSpec",
]
