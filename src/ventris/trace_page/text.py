"""Token bytes as text for people: partial characters, whitespace and control characters made visible."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from itertools import accumulate
from typing import Protocol


class ByteView(Protocol):
    """The part of a tokenizer that the page needs."""

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token adds to a text."""
        ...


# Invisible characters that could hide text, break lines or turn the writing direction of what follows.
_HIDDEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
# Bytes that are no UTF-8, as Python's "surrogateescape" spells them.
_BYTES = "\udc80-\udcff"
_SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
_MARKED = re.compile(f"[ \n\t]|[{_HIDDEN}]|[{_BYTES}]+")
_IN_TEXT = re.compile(f"(?P<line>\n)|(?P<tab>\t)|(?P<spaces> {{2,}})|(?P<odd>[{_HIDDEN}]|[{_BYTES}]+)")


def bytes_of(tokenizer: ByteView | None, token: int) -> bytes:
    """A token's bytes; a label for rows that stand for no token, and for models without a tokenizer."""
    if token < 0:
        return "⟨embedded⟩".encode()
    if tokenizer is None:
        return f"#{token} ".encode()
    return tokenizer.token_bytes(token)


def visible(data: bytes) -> str:
    """One token on its own, with every character visible: ``b' a\\xe2\\x80'`` becomes ``␣a⟨E2 80⟩``."""
    text = data.decode("utf-8", "surrogateescape")
    return _MARKED.sub(lambda found: _SIGNS.get(found[0]) or _label(found[0]), text) or "⟨empty⟩"


def _label(odd: str) -> str:
    if "\udc80" <= odd[0] <= "\udcff":
        return f"⟨{' '.join(f'{ord(char) - 0xDC00:02X}' for char in odd)}⟩"
    return _SIGNS.get(odd) or f"⟨U+{ord(odd):04X}⟩"


def shares(parts: Sequence[bytes]) -> list[str]:
    """The text of consecutive tokens, cut at the tokens; a character belongs to the token it begins in.

    Bytes that are no UTF-8 stay in as surrogates. The later tokens of a character get an empty share.
    """
    result = [""] * len(parts)
    ends = list(accumulate(map(len, parts)))
    owner = offset = 0
    for char in b"".join(parts).decode("utf-8", "surrogateescape"):
        while offset >= ends[owner]:
            owner += 1
        result[owner] += char
        offset += 1 if "\udc80" <= char <= "\udcff" else len(char.encode())
    return result


def to_html(text: str) -> str:
    """Text as HTML that copies as the text itself, with marks on whitespace that one would not see."""
    html, start = [], 0
    for found in _IN_TEXT.finditer(text):
        html.append(escape(text[start : found.start()]))
        start = found.end()
        if found["line"]:
            # The sign comes from the style sheet, so that it is not copied along.
            html.append('<b class="line"></b>\n')
        elif found["odd"]:
            html.append(f'<b class="odd">{_label(found[0])}</b>')
        else:
            html.append(f'<b class="{found.lastgroup}">{found[0]}</b>')
    return "".join([*html, escape(text[start:])])
