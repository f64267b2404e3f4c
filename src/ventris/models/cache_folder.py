"""Where Ventris keeps what it may make anew, and how a file gets there whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Progress = Callable[[str, float | None], None]
"""Told what is being done and which share of it is done, 0 to 1; ``None`` where nobody can say."""


def cache_folder() -> Path:
    """``$VENTRIS_CACHE``, else ``$XDG_CACHE_HOME/ventris``, else ``~/.cache/ventris``; may not exist yet."""
    if chosen := os.environ.get("VENTRIS_CACHE"):
        return Path(chosen).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "ventris"
    return Path.home() / ".cache" / "ventris"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, moved there when the block ends well and removed when it does not.

    Readers see the old file or the new one, never a half; two processes that write at once both succeed.

    Raises:
        OSError: if the folder cannot be made or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
