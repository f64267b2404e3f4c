"""What was learnt for one user and one target, on disk: whole or not at all, and never more than allowed."""

from __future__ import annotations

import time
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.models.cache_folder import written_whole

MEGABYTE = 1 << 20

ABANDONED = 3600.0
"""Seconds after which an unfinished file is nobody's any more."""


class Memory:
    """A file for one target in a folder for one user.

    A file is written beside the old one and then put in its place, so a process that is killed while it
    writes leaves the last good one.

    Args:
        folder: The user's.
        key: What names draft model and target.
        megabytes: That all files of the folder may have together. For more, those of the targets that were
            not used for longest are removed.

    Raises:
        BadInput: if the folder cannot be made or used.
    """

    def __init__(self, folder: Path, key: str, megabytes: float) -> None:
        self.folder = folder
        self.path = folder / f"{key}.safetensors"
        self.limit = int(megabytes * MEGABYTE)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._make_room(0)
        except OSError as error:
            raise BadInput(f"cannot keep what is learnt in {folder}: {error}; give another memory") from None

    def load(self) -> dict[str, Tensor] | None:
        """What was saved last; ``None`` if nothing was.

        Raises:
            BadInput: if the file is damaged.
        """
        if not self.path.is_file():
            return None
        try:
            self.path.touch()  # it is in use, so others are removed first
            return load_file(self.path)
        except (OSError, SafetensorError) as error:
            raise BadInput(f"{self.path} is damaged ({error}); remove it to begin anew") from None

    def check(self, most: int) -> None:
        """Refuse to begin what may come to more bytes than are allowed.

        Raises:
            BadInput: naming both figures.
        """
        if most > self.limit:
            raise BadInput(
                f"what is learnt may take {most / MEGABYTE:.1f} MB, more than the "
                f"{self.limit / MEGABYTE:g} MB that are allowed; raise disk, or lower rank"
            )

    def save(self, tensors: dict[str, Tensor]) -> None:
        """Put ``tensors`` in the place of what was saved before.

        Raises:
            OSError: if they cannot be written.
        """
        content = save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
        # Room first: at no moment the folder holds more than the limit and the file that is being written.
        self._make_room(len(content))
        with written_whole(self.path) as temporary:
            temporary.write_bytes(content)

    def _make_room(self, needed: int) -> None:
        """Remove what unfinished writes left behind, and other targets' files until ``needed`` bytes fit."""
        now = time.time()
        for file in self.folder.glob(".*.safetensors.*"):
            if now - file.stat().st_mtime > ABANDONED:
                file.unlink(missing_ok=True)
        others = [file for file in self.folder.glob("*.safetensors") if file != self.path]
        others.sort(key=lambda file: file.stat().st_mtime)
        used = sum(file.stat().st_size for file in others)
        while others and used + needed > self.limit:
            oldest = others.pop(0)
            used -= oldest.stat().st_size
            oldest.unlink(missing_ok=True)
