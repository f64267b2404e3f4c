"""From a name to a model: the embedded one, a GGUF file, a transformers folder, or a hub id."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

from ventris.engine.errors import BadInput
from ventris.models.cache_folder import Progress
from ventris.models.config import DecoderConfig
from ventris.models.embedded import EMBEDDED_NAME, embedded_model
from ventris.models.model_cache import CacheEntry, Description
from ventris.models.tokenizer import Tokenizer
from ventris.models.weights import Weights

logger = logging.getLogger("ventris")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_HEAD = 4096
"""Bytes of a weight file that go into its fingerprint."""

SourceKind = Literal["gguf", "safetensors", "transformers"]


class Checkpoint(Protocol):
    """How one kind of checkpoint is read."""

    def describe(self) -> Description: ...

    def weights(self, config: DecoderConfig) -> Weights: ...


class ModelSource:
    """Where a model comes from, and its parts, each read when first asked for.

    Attributes:
        name: What the user called it.
        path: The GGUF file or the folder.
        kind: ``gguf``; ``safetensors`` for a transformers folder that the native decoder expresses;
            ``transformers`` for one that only the adapter can run (``config`` is ``None`` then).
        fingerprint: Hash of size, time of change and first bytes of its files, whatever their path.
        cache: What earlier runs kept of it.
    """

    def __init__(self, name: str, path: Path, checkpoint: Checkpoint, fingerprint: str) -> None:
        self.name = name
        self.path = path
        self.fingerprint = fingerprint
        self.cache = CacheEntry(fingerprint)
        self._checkpoint = checkpoint

    @property
    def kind(self) -> SourceKind:
        if self.path.is_file():
            return "gguf"
        return "safetensors" if self.config is not None else "transformers"

    @property
    def config(self) -> DecoderConfig | None:
        """Sizes and switches; ``None`` if only transformers can run the model.

        Raises:
            BadInput: if the checkpoint is damaged or of a kind that is not supported.
        """
        return self._description.config

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            BadInput: as :attr:`config`, and if the tokenizer has ids that the model does not know.
        """
        return self._description.tokenizer

    @property
    def bits(self) -> int:
        """Bits in which most weights are stored: 4 or 8 in blocks, otherwise 16."""
        return self._description.bits

    @cached_property
    def weights(self) -> Weights:
        """Weights by name, each read from disk when it is looked up.

        Raises:
            BadInput: if one is missing or of a wrong shape, or the model is one for transformers only.
        """
        if self.config is None:
            raise BadInput(f"{self.name} can only be run by transformers, which reads its own weights")
        return self._checkpoint.weights(self.config)

    @cached_property
    def _description(self) -> Description:
        known = self.cache.load()
        if known is None:
            known = self._checkpoint.describe()
            try:
                self.cache.save(known)
            except OSError as error:
                logger.warning("cannot keep the tokenizer of %s in the cache: %s", self.name, error)
        if known.config is not None:
            known.tokenizer.limit_ids(known.config.vocab_size)
        return known


def resolve(name: str | Path, progress: Progress | None = None) -> ModelSource:
    """Find a model by name.

    Args:
        name: ``smollm2-135m-instruct`` (the embedded model), the path of a ``.gguf`` file or of a folder
            with ``config.json``, or a hub id such as ``org/model``.
        progress: Told about downloads.

    Raises:
        BadInput: if there is no such model, it cannot be fetched, or it is not usable.
    """
    shown = str(name)
    if shown == EMBEDDED_NAME:
        return _gguf(shown, embedded_model(progress))
    path = Path(shown).expanduser()
    if path.is_dir() and shown:
        return _folder(shown, path)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise BadInput(f"{shown} is neither a .gguf file nor a folder; give one of these or a hub id")
        return _gguf(shown, path)
    if isinstance(name, Path) or path.suffix.lower() == ".gguf" or not _HUB_ID.fullmatch(shown):
        raise BadInput(
            f"there is no model at {shown!r}; give a .gguf file, a folder, a hub id such as org/model, "
            f"or {EMBEDDED_NAME}"
        )
    if get_close_matches(shown.lower(), [EMBEDDED_NAME], cutoff=0.9):
        # No model of the hub is called so, and its answer would only be that it knows none.
        raise BadInput(f"there is no model {shown!r}; did you mean {EMBEDDED_NAME!r}?")
    from ventris.models.hub import fetch

    return _folder(shown, fetch(shown, progress))


def _gguf(name: str, path: Path) -> ModelSource:
    from ventris.models.gguf_checkpoint import GgufCheckpoint

    return ModelSource(name, path, GgufCheckpoint(path), _fingerprint([path]))


def _folder(name: str, path: Path) -> ModelSource:
    from ventris.models.folder_checkpoint import FolderCheckpoint

    checkpoint = FolderCheckpoint(path)
    return ModelSource(name, path, checkpoint, _fingerprint(checkpoint.files()))


def _fingerprint(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        try:
            facts = file.stat()
            with file.open("rb") as content:
                head = content.read(_HEAD)
        except OSError as error:
            raise BadInput(f"cannot read {file}: {error}; check the path and its permissions") from None
        digest.update(f"{file.suffix}:{facts.st_size}:{facts.st_mtime_ns}:".encode() + head)
    return digest.hexdigest()[:32]
