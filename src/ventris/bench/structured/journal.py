"""Results on disk as they come: a run that was broken off goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ventris.engine.errors import BadInput


class Journal:
    """JSON lines: first what was measured, then one result a line.

    Args:
        path: The file; ``None`` keeps nothing.
        about: What was measured. A file about something else is refused.

    Attributes:
        results: What is there already. A line that was broken off is dropped and measured again.

    Raises:
        BadInput: if the file cannot be used, or is about something else.
    """

    def __init__(self, path: str | None, about: dict[str, Any]) -> None:
        self._path = Path(path).expanduser() if path else None
        self.results: list[dict[str, Any]] = []
        if self._path is None:
            return
        try:
            lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
            whole = [line for line in lines if line.endswith(b"\n")]
            entries = [json.loads(line) for line in whole]
            if entries and entries[0] != json.loads(json.dumps(about)):
                raise BadInput(f"{path} is about another run; name another file, or repeat its settings")
            self.results = entries[1:]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if len(whole) < len(lines):
                with self._path.open("r+b") as file:
                    file.truncate(sum(map(len, whole)))
            if not entries:
                self._append(about)
        except OSError as error:
            raise BadInput(f"cannot use the journal {path}: {error.strerror}") from None
        except ValueError as error:
            raise BadInput(f"{path} is no journal of a benchmark: {error}") from None

    def add(self, result: dict[str, Any]) -> None:
        """Keep one more result."""
        self.results.append(result)
        if self._path is not None:
            self._append(result)

    def _append(self, entry: dict[str, Any]) -> None:
        assert self._path is not None
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
