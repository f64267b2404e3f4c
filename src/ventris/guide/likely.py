"""Tokens that are worth trying when the end of a text is searched for."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Likely:
    """Tokens that tend to lead to the end of a text.

    Attributes:
        closing: Brackets and quotes.
        short: The shortest values and then every single byte, so that no text is out of reach.
        fillers: Words, the longest first, for texts that are too short.
    """

    closing: list[int]
    short: list[int]
    fillers: list[int]

    @classmethod
    def of(cls, token_bytes: list[bytes], special: frozenset[int]) -> Likely:
        known = {spelled: t for t, spelled in enumerate(token_bytes) if t not in special and spelled}
        words = {len(spelled): t for spelled, t in known.items() if re.fullmatch(rb"[a-z]{2,12}", spelled)}
        short = [known[spelled] for spelled in _SHORT if spelled in known]
        single = [token for spelled, token in sorted(known.items()) if len(spelled) == 1]
        return cls(
            [known[spelled] for spelled in _CLOSING if spelled in known],
            list(dict.fromkeys([*short, *single])),
            [words[size] for size in sorted(words, reverse=True)],
        )


# Brackets first: inside a string they change nothing and are passed over, elsewhere they end most.
_CLOSING = (b")", b"]", b"}", b">", b'""', b'"', b"'")
_SHORT = (b"@", b"0", b"[]", b"{}", b"1", b"true", b"null", b"false", *(bytes([c]) for c in b",:a \n.-"))
