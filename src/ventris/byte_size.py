"""Sizes of memory as people write them."""

from __future__ import annotations

import re

from ventris.engine.errors import BadInput

UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}


def read_bytes(size: int | str) -> int:
    """Bytes of a size such as ``"330MB"``, ``"1.5 GiB"`` or a plain number.

    Raises:
        BadInput: if it is none, or less than a byte.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(size).lower())
    known = found is not None and found.group(2) in UNITS
    count = int(float(found.group(1)) * UNITS[found.group(2)]) if found and known else 0
    if count < 1:
        raise BadInput(
            f"{size!r} is no size of memory; write a number of bytes, or one such as 330MB or 1.5GiB"
        )
    return count
