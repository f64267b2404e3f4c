"""The target's hidden states over the texts, computed once and shared by all methods.

For each file of texts one ``.npy`` of bfloat16 numbers (held as uint16), ``[tokens, taps, d]``, is written
whole and then only mapped into memory. The folder is named by what the numbers depend on: target, texts and
tapped layers. Answers bring their rows with them (see :mod:`ventris.train.recorder`); what is missing is
computed by reading the texts again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.engine.target import Rows, Target
from ventris.models.cache_folder import written_whole
from ventris.train.recorder import Bits, from_bits, to_bits
from ventris.train.texts import Progress, TextShard, claim_folder

CHUNK = 256
"""Tokens of one text read in one forward."""


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """The folder of some layers' rows.

    Attributes:
        taps: Layers as :meth:`Target.forward` counts them; the last one gives the row that the final norm
            reads.
    """

    folder: Path
    taps: tuple[int, ...]

    @classmethod
    def beneath(cls, folder: Path, taps: Sequence[int], facts: Mapping[str, Any]) -> HiddenStates:
        """The folder beneath that of the texts.

        Args:
            facts: What else the numbers depend on, such as the target's sketch and number format.
        """
        found, manifest = cls._named(folder, taps, facts)
        claim_folder(found.folder / "hidden.json", manifest)
        return found

    @classmethod
    def existing(cls, folder: Path, taps: Sequence[int], facts: Mapping[str, Any]) -> HiddenStates | None:
        """As :meth:`beneath` where the folder is there already, otherwise nothing."""
        found, _ = cls._named(folder, taps, facts)
        return found if found.folder.is_dir() else None

    @classmethod
    def _named(
        cls, folder: Path, taps: Sequence[int], facts: Mapping[str, Any]
    ) -> tuple[HiddenStates, dict[str, Any]]:
        manifest = {"taps": list(taps), **facts}
        key = hashlib.sha256(repr(sorted(manifest.items())).encode()).hexdigest()[:16]
        return cls(folder / f"hidden-{key}", tuple(taps)), manifest

    def file(self, texts: Path) -> Path:
        """Where the rows of a file of texts belong."""
        return self.folder / f"{texts.stem}.npy"

    def keep(self, texts: Path, rows: Bits) -> None:
        """Write the rows of a file of texts, ``[tokens, taps, d]``."""
        with written_whole(self.file(texts)) as temporary, temporary.open("wb") as file:
            np.save(file, rows)

    def complete(
        self,
        target: Target,
        texts: Sequence[Path],
        progress: Progress | None = None,
        other: HiddenStates | None = None,
    ) -> list[Path]:
        """Run the target over the texts that have no rows yet.

        Args:
            other: Rows of other layers, from which this may begin where it has them: the layers between are
                run alone, and what is there is taken as it is.

        Returns:
            One file for each file of texts.
        """
        for number, path in enumerate(texts):
            if progress:
                progress("reading hidden states", number, len(texts))
            if not self.file(path).is_file():
                shard = TextShard.load(path)
                known = None if other is None or not other.file(path).is_file() else other
                self.keep(
                    path, self._read(target, shard) if known is None else self._go_on(target, path, known)
                )
        return [self.file(path) for path in texts]

    def _go_on(self, target: Target, path: Path, other: HiddenStates) -> Bits:
        """The rows of a file of texts, from those that ``other`` has of lower layers."""
        shard, known = TextShard.load(path), np.load(other.file(path), mmap_mode="r")
        missing = [tap for tap in self.taps if tap not in other.taps]
        first = max((tap for tap in other.taps if tap <= min(missing, default=0)), default=None)
        if first is None:
            return self._read(target, shard)
        rows = np.zeros((len(known), len(self.taps), known.shape[-1]), dtype=np.uint16)
        for place, tap in enumerate(self.taps):
            if tap in other.taps:
                rows[:, place] = known[:, other.taps.index(tap)]
        if missing:
            places = [self.taps.index(tap) for tap in missing]
            for start, stop in zip(shard.starts[:-1], shard.starts[1:] - 1, strict=True):
                if stop > start:
                    given = from_bits(known[start:stop, other.taps.index(first)])
                    rows[start:stop, places] = to_bits(rows_from(target, given, first, missing))
        return rows

    def _read(self, target: Target, shard: TextShard) -> Bits:
        rows = np.zeros((len(shard.tokens), len(self.taps), target.hidden_size), dtype=np.uint16)
        for start, stop in zip(shard.starts[:-1], shard.starts[1:], strict=True):
            # Nothing follows a text's last token, so its rows stay zero, as those of an answer do.
            tokens = shard.tokens[start : stop - 1].tolist()
            if tokens:
                rows[start : stop - 1] = to_bits(hidden_rows(target, tokens, self.taps))
        return rows


def check_layer(target: Target, layer: int) -> None:
    """Refuse to tap a layer that the target does not have.

    Raises:
        BadInput: naming both figures.
    """
    if layer > target.num_layers:
        raise BadInput(
            f"layer {layer} cannot be read, the target has {target.num_layers}; choose a lower one"
        )


@torch.no_grad()
def hidden_rows(target: Target, tokens: Sequence[int], taps: Sequence[int]) -> Tensor:
    """The tapped rows of one text, ``[n, taps, d]``."""
    cache = target.new_cache(len(tokens))
    parts = []
    for first in range(0, len(tokens), CHUNK):
        some = list(tokens[first : first + CHUNK])
        scores = target.forward([Rows(cache, some, range(-1, len(some) - 1), wanted=())], taps)
        parts.append(torch.stack([scores.hidden[layer].cpu() for layer in taps], dim=1))
        cache.commit(range(len(some)))
    cache.release()
    return torch.cat(parts)


@torch.no_grad()
def rows_from(target: Target, given: Tensor, first: int, taps: Sequence[int]) -> Tensor:
    """The tapped rows of one text, ``[n, taps, d]``, from the inputs of layer ``first``, ``[n, d]``."""
    cache = target.new_cache(len(given))
    parts = []
    for rows in torch.split(given.to(target.device), CHUNK):
        count = len(rows)
        batch = [Rows(cache, [0] * count, range(-1, count - 1))]
        _, tapped = target.run_layers(batch, rows, first, max(taps), taps)
        parts.append(torch.stack([tapped[layer].cpu() for layer in taps], dim=1))
        cache.commit(range(count))
    cache.release()
    return torch.cat(parts)
