"""Who holds how much memory, and what is left of a limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

PASSES = "passes"
"""Owner of what passes of the models take while they last."""

WEIGHTS = "weights"
"""Owner of the models' weights, in a ledger that counts them."""


class MemoryLedger:
    """Counts bytes by named owner, and refuses what would pass the limit.

    Args:
        limit: Bytes that all owners together may hold; ``None`` for no limit.
        counts_weights: Whether the limit is one on everything, the models' weights included.

    Attributes:
        kept: Bytes that are kept free for passes; nobody else gets them.
        peak: Most bytes that were held at a time.
    """

    def __init__(self, limit: int | None = None, counts_weights: bool = False) -> None:
        self.limit = limit
        self.counts_weights = counts_weights
        self.held: dict[str, int] = {}
        self.kept = 0
        self.peak = 0

    @property
    def total(self) -> int:
        """Bytes held by all owners."""
        return sum(self.held.values())

    @property
    def left(self) -> int | None:
        """Bytes that may still be booked or kept; ``None`` without a limit."""
        if self.limit is None:
            return None
        return self.limit - self.total - max(self.kept - self.held.get(PASSES, 0), 0)

    def charge(self, owner: str, size: int) -> None:
        """Book ``size`` bytes (negative: give back) on ``owner``.

        Raises:
            MemoryError: when the limit would be passed; nothing is booked then.
        """
        if self.limit is not None and size > 0:
            left = self.limit - self.total if owner == PASSES else self.left
            self._check(owner, size, left)
        self.held[owner] = self.held.get(owner, 0) + size
        self.peak = max(self.peak, self.total)

    def keep(self, size: int) -> None:
        """Keep ``size`` more bytes (negative: fewer) free for passes.

        Raises:
            MemoryError: if so much is not left; nothing has changed then.
        """
        self._check(PASSES, size, self.left)
        self.kept += size

    @contextmanager
    def keeping(self, size: int) -> Iterator[None]:
        """:meth:`keep` for as long as the context lasts.

        Raises:
            MemoryError: as :meth:`keep`.
        """
        self.keep(size)
        try:
            yield
        finally:
            self.keep(-size)

    @contextmanager
    def holding(self, owner: str, size: int) -> Iterator[None]:
        """:meth:`charge` for as long as the context lasts.

        Raises:
            MemoryError: as :meth:`charge`.
        """
        self.charge(owner, size)
        try:
            yield
        finally:
            self.charge(owner, -size)

    def _check(self, owner: str, size: int, left: int | None) -> None:
        if left is not None and size > 0 and size > left:
            raise MemoryError(
                f"{owner!r} needs {size:,} more bytes, and of the memory budget of {self.limit:,} bytes "
                f"{left:,} are left; raise the budget or shorten the request"
            )
