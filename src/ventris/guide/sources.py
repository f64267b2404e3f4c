"""Texts that may be given as they are or as a file."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from ventris.engine.errors import BadInput

LONGEST_NAME = 1000


def read_text(source: str | PathLike[str], what: str) -> str:
    """The text itself, or what is in the file that ``source`` names.

    Raises:
        BadInput: if a file cannot be read.
    """
    if isinstance(source, str) and not names_file(source):
        return source
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8"
        raise BadInput(f"cannot read the {what} {source}: {reason}") from None


def names_file(text: str) -> bool:
    """True for one line that is the name of a file."""
    if "\n" in text or len(text) > LONGEST_NAME:
        return False
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False
