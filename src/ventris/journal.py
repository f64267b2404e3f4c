"""Results on disk as they come: a run that was broken off goes on where it stopped."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ventris.engine.errors import BadInput

Entry = dict[str, Any]


class Journal:
    """JSON lines in a file: first what the run is about, then one entry a line.

    An entry is on the disk when :meth:`add` returns. A last line that a killed run left unfinished is cut
    off.

    Args:
        path: The file; made if it is not there, with its folder.
        about: What the run is about. A file about something else is refused.

    Attributes:
        places: Where each entry begins, in bytes.

    Raises:
        BadInput: if the file cannot be used, or is about something else.
    """

    def __init__(self, path: Path, about: Entry) -> None:
        self.path = path
        self.places: list[int] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise BadInput(f"cannot use the journal {path}: {error.strerror}") from None
        try:
            self._open(json.loads(json.dumps(about)))
        except BaseException:
            self._file.close()
            raise

    def _open(self, about: Entry) -> None:
        head, whole = self._scan()
        size = self._file.seek(0, os.SEEK_END)
        first = _line(about)
        if head is not None and head != about:
            raise BadInput(f"{self.path} is about another run; name another file, or repeat its settings")
        if head is None and size:
            self._file.seek(0)
            # A run that was killed at once left a beginning of our own first line; all else is not ours.
            if not first.startswith(self._file.read(len(first))):
                raise BadInput(f"{self.path} is no journal; name another file")
        self._file.truncate(whole)
        if head is None:
            self._append(first)

    def claim(self) -> None:
        """Keep other processes that claim it from working on the same file, until this one closes it or ends.

        Raises:
            BadInput: if another process has claimed it.
        """
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(f"{self.path} is in use by another process; let it finish") from None

    def _scan(self) -> tuple[Entry | None, int]:
        """The first line's value, and where the last whole line ends."""
        self._file.seek(0)
        head, end = None, 0
        for number, line in enumerate(self._file):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise BadInput(f"{self.path} is no journal: line {number + 1}: {error}") from None
            if number:
                self.places.append(end)
            else:
                head = entry
            end += len(line)
        return head, end

    def add(self, entry: Entry) -> None:
        """Keep one more entry; it survives whatever happens afterwards.

        Raises:
            OSError: if it cannot be written.
        """
        self.places.append(self._file.seek(0, os.SEEK_END))
        self._append(_line(entry))

    def _append(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())

    def read(self, place: int) -> Entry:
        """The entry that begins there."""
        self._file.seek(place)
        entry: Entry = json.loads(self._file.readline())
        return entry

    def entries(self) -> Iterator[Entry]:
        """All entries, in the order in which they came."""
        return map(self.read, self.places)

    def close(self) -> None:
        """Let other processes have it."""
        self._file.close()


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, ensure_ascii=False).encode() + b"\n"
