"""The contract of verifiers."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ventris.engine.walk import Walk


@runtime_checkable
class Verifier(Protocol):
    """Answers: which drafted path is kept, and what is the next token?

    Attributes:
        name: As in the registry.
        exact: True if the output follows the guided target's own distribution.
        greedy_only: True if it makes sense at temperature 0 alone.
        chain_only: True if it takes only drafts with a single path.

    Optional attributes:

    - ``draft_purpose`` lets drafters sample with the verifier's own random numbers; only a verifier whose
      outcome does not depend on the draft may set it;
    - ``taps``: target layers whose hidden rows it reads, by :meth:`Walk.tapped`;
    - ``reads_beliefs``: true if it reads :attr:`TokenTree.beliefs`.
    """

    name: str
    exact: bool
    greedy_only: bool
    chain_only: bool

    def select(self, walk: Walk) -> None:
        """Walk from the root by :meth:`Walk.take` until the walk is closed."""
        ...
