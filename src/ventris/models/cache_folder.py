"""Where Ventris keeps what it may make anew, and how a file gets there whole or not at all."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ventris.engine.errors import BadInput

Progress = Callable[[str, float | None], None]
"""Told what is being done and which share of it is done, 0 to 1; ``None`` where nobody can say."""


def cache_folder() -> Path:
    """``$VENTRIS_CACHE``, else ``$XDG_CACHE_HOME/ventris``, else ``~/.cache/ventris``; may not exist yet."""
    if chosen := os.environ.get("VENTRIS_CACHE"):
        return Path(chosen).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "ventris"
    return Path.home() / ".cache" / "ventris"


def ready_folder(folder: str | Path) -> None:
    """Make a folder for what takes long to compute, and see that files can be written there.

    Raises:
        BadInput: if it cannot be made or written to.
    """
    place = Path(folder).expanduser()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise BadInput(f"cannot write to the folder {folder}: {error.strerror or error}") from None


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
