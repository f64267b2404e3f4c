"""Policies: how much to draft, and when to spend more?"""

from ventris.policy.cost_curve import CostCurve, measure
from ventris.policy.fixed import Fixed
from ventris.policy.goodput import Goodput

__all__ = ["CostCurve", "Fixed", "Goodput", "measure"]
