"""API keys: who may ask, and who is asking."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from ventris.engine.errors import BadInput

VARIABLE = "VENTRIS_API_KEYS"
SHORTEST = 8


class ApiKeys:
    """The keys that the server takes, kept as hashes.

    Args:
        keys: In the order of the file; clients are called ``key1``, ``key2`` … after it in logs.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._digests = [_digest(key) for key in dict.fromkeys(keys)]

    def __len__(self) -> int:
        return len(self._digests)

    def holder(self, authorization: str) -> str | None:
        """Who sends ``Authorization: Bearer KEY``; ``None`` for a wrong or missing key.

        Every key is compared in full, whatever was found before, so the time tells nothing.
        """
        scheme, _, given = authorization.partition(" ")
        digest = _digest(given.strip())
        found = 0
        for number, known in enumerate(self._digests, 1):
            found |= number * hmac.compare_digest(digest, known)
        return f"key{found}" if found and scheme.lower() == "bearer" else None


def read_keys(path: Path | None, environment: Mapping[str, str] = os.environ) -> ApiKeys:
    """Keys from a file (one a line; empty lines and those with ``#`` in front do not count) and the
    environment.

    Raises:
        BadInput: if the file cannot be read or holds no key, or a key is very short; keys are never quoted.
    """
    keys = []
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8"
            raise BadInput(f"cannot read the API keys in {path}: {reason}") from None
        keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not keys:
            raise BadInput(f"{path} holds no API key; write one a line")
    keys += [key.strip() for key in environment.get(VARIABLE, "").split(",") if key.strip()]
    for number, key in enumerate(keys, 1):
        if len(key) < SHORTEST or not key.isascii() or " " in key:
            raise BadInput(
                f"API key number {number} must be {SHORTEST} or more ASCII characters without blanks"
            )
    return ApiKeys(keys)


def _digest(key: str) -> bytes:
    return sha256(key.encode(errors="replace")).digest()
