"""A benchmark's results in a journal, if its settings name one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ventris import journal


class Journal:
    """Results of a run, on disk where a file was named.

    Args:
        path: The file; ``None`` keeps nothing.
        about: What was measured. A file about something else is refused.

    Attributes:
        results: What is there already. A line that was broken off is dropped and measured again.

    Raises:
        BadInput: if the file cannot be used, or is about something else.
    """

    def __init__(self, path: str | None, about: dict[str, Any]) -> None:
        self._kept = journal.Journal(Path(path).expanduser(), about) if path else None
        self.results = list(self._kept.entries()) if self._kept is not None else []

    def add(self, result: dict[str, Any]) -> None:
        """Keep one more result."""
        self.results.append(result)
        if self._kept is not None:
            self._kept.add(result)
