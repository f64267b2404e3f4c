"""The file of requests: read once to check every line, and again line by line as answers are due.

The format is OpenAI's, one object a line:
``{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {...}}``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from ventris.engine.errors import BadInput

URLS = ("/v1/chat/completions", "/v1/completions")
FIELDS = frozenset({"custom_id", "method", "url", "body"})
LONGEST_NAME = 1000
FAULTS_TOLD = 8
"""More than a person reads at once."""


@dataclass(frozen=True, slots=True)
class RequestLine:
    """Where a request stands in its file.

    Attributes:
        number: Line, from 1.
        place, length: In bytes.
    """

    number: int
    place: int
    length: int
    custom_id: str
    url: str


class RequestsFile:
    """Checked requests; only their places are held in memory.

    Args:
        path: A JSON-lines file. Empty lines do not count.

    Attributes:
        lines: The requests in the order of the file.
        digest: SHA-256 of the file.

    Raises:
        BadInput: if it cannot be read, holds no request, or has other lines; these are named by number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[RequestLine] = []
        hashed = sha256()
        faults: list[str] = []
        first_use: dict[str, int] = {}
        try:
            for number, place, data in self._raw():
                hashed.update(data)
                if not data.strip():
                    continue
                try:
                    entry = _checked(data)
                    name = entry["custom_id"]
                    if name in first_use:
                        raise BadInput(f"custom_id {name[:80]!r} is that of line {first_use[name]} already")
                except BadInput as fault:
                    faults.append(f"line {number}: {fault}")
                    continue
                first_use[name] = number
                self.lines.append(RequestLine(number, place, len(data), name, entry["url"]))
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error.strerror}") from None
        if faults:
            more = f"; and {len(faults) - FAULTS_TOLD} more" if len(faults) > FAULTS_TOLD else ""
            raise BadInput(f"{path} has lines that are no requests: {'; '.join(faults[:FAULTS_TOLD])}{more}")
        if not self.lines:
            raise BadInput(f"{path} holds no requests")
        self.digest = hashed.hexdigest()

    def _raw(self) -> Iterator[tuple[int, int, bytes]]:
        place = 0
        with self.path.open("rb") as file:
            for number, data in enumerate(file, 1):
                yield number, place, data
                place += len(data)

    def body(self, line: RequestLine) -> dict[str, Any]:
        """The body of a request.

        Raises:
            BadInput: if the file has changed since it was checked.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(line.place)
                entry = _checked(file.read(line.length))
            if entry["custom_id"] != line.custom_id:
                raise BadInput("another custom_id")
        except (OSError, BadInput):
            raise BadInput(f"{self.path} has changed while it was worked on; start anew") from None
        body: dict[str, Any] = entry["body"]
        return body


def _checked(data: bytes) -> dict[str, Any]:
    try:
        entry = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"no JSON: {error.msg}") from None
    if not isinstance(entry, dict):
        raise BadInput("no JSON object")
    if unknown := sorted(entry.keys() - FIELDS):
        raise BadInput(f"unknown field {unknown[0][:80]!r}")
    name = entry.get("custom_id")
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        raise BadInput(f"custom_id must be a text of 1 to {LONGEST_NAME} characters")
    if entry.get("method") != "POST":
        raise BadInput("method must be 'POST'")
    if entry.get("url") not in URLS:
        raise BadInput(f"url must be {' or '.join(URLS)}")
    if not isinstance(entry.get("body"), dict):
        raise BadInput("body must be a JSON object")
    return entry
