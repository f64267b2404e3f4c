"""How much a drafter has to read before it can draft for a request again."""

from __future__ import annotations


def tokens_behind(text: int, seen: int, length: int) -> int:
    """Tokens that a drafter has to read first, for a request that it has not drafted for in a while.

    Args:
        text: Tokens of the text.
        seen: As many had it when it was last drafted for.
        length: Tokens to be drafted; after a step with a draft those of the last one are read already, but
            for one or two.
    """
    return max(text - seen - length - 1, 0)
