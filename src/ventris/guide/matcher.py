"""What a hard guide asks of the automaton that stands behind it."""

from __future__ import annotations

from typing import Protocol, Self


class Matcher(Protocol):
    """A place in a text of a language.

    The names are those of llguidance's ``LLMatcher``. Tokens are ids of the vocabulary that the matcher was
    made for; none may be an end token, except in :meth:`validate_tokens`.
    """

    @property
    def dear(self) -> bool:
        """Whether a mask has passed a limit with this grammar; none should be asked for lightly then."""
        ...

    def try_consume_tokens(self, tokens: list[int], /) -> int:
        """Follow tokens as far as they are allowed; how many were."""
        ...

    def validate_tokens(self, tokens: list[int], /) -> int:
        """How many tokens are allowed one behind another; an end token is where the text may end."""
        ...

    def unsafe_compute_mask_ptr(self, address: int, size: int, /) -> None:
        """Write the mask, one bit a token and the lowest first, into ``size`` bytes at ``address``."""
        ...

    def compute_bitmask(self) -> bytes:
        """The same mask as bytes."""
        ...

    def compute_ff_tokens(self) -> list[int]:
        """Tokens of the text that must come next; none where the back end does not tell."""
        ...

    def is_accepting(self) -> bool:
        """Whether the text may end here."""
        ...

    def is_error(self) -> bool:
        """Whether the matcher gave up."""
        ...

    def get_error(self) -> str:
        """Why; empty if it did not."""
        ...

    def deep_copy(self) -> Self:
        """An independent copy."""
        ...
