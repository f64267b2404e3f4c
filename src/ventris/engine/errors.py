"""The errors a caller can act on; each message is one line that names the input and the remedy."""

from __future__ import annotations


class VentrisError(Exception):
    """Base of all errors that Ventris raises on purpose."""


class BadInput(VentrisError):
    """Something the caller gave cannot be used: a model, a file, a number, a name."""


class OverBudget(BadInput):
    """A request needs more memory than there may ever be."""


class StageLost(VentrisError):
    """The process that holds the other layers of a split model is gone, or was never there."""


class Incompatible(VentrisError):
    """Two parts that cannot work together, found when they are put together.

    Args:
        first: Name of one part.
        second: Name of the other.
        reason: Why, and what to use instead.
    """

    def __init__(self, first: str, second: str, reason: str) -> None:
        super().__init__(f"{first} cannot be combined with {second}: {reason}")
        self.first = first
        self.second = second
        self.reason = reason


class BrokenModel(VentrisError):
    """The model produced something that is no distribution, such as NaN logits."""
