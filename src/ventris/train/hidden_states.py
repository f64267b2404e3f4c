"""The target's hidden states over the texts, computed once and shared by all methods.

For each file of texts one ``.npy`` of bfloat16 numbers (held as uint16), ``[tokens, taps, d]``, is written
whole and then only mapped into memory. The folder is named by what the numbers depend on: target, texts and
tapped layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ventris.engine.target import Rows, Target
from ventris.models.cache_folder import written_whole
from ventris.train.texts import Progress, TextShard, claim_folder

CHUNK = 256
"""Tokens of one text read in one forward."""

Mapped = NDArray[np.uint16]


def to_bits(rows: Tensor) -> Mapped:
    """Rows rounded to bfloat16, as the 16 bits of each number."""
    bits: Mapped = rows.to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy().view(np.uint16)
    return bits


def from_bits(bits: Mapped) -> Tensor:
    """The float32 numbers of :func:`to_bits`."""
    return torch.from_numpy(np.array(bits).view(np.int16)).view(torch.bfloat16).float()


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


def cache_hidden_states(
    target: Target,
    texts: Sequence[Path],
    folder: Path,
    taps: Sequence[int],
    facts: dict[str, Any],
    progress: Progress | None = None,
) -> list[Path]:
    """Run the target over all texts; files that are there already are kept.

    Args:
        texts: Files of :func:`ventris.train.texts.distil_texts`.
        folder: Beneath it, the folder of these taps is made.
        taps: Layers as :meth:`Target.forward` counts them; the last one gives the final-normed row.
        facts: What else the numbers depend on, such as the target's sketch and number format.

    Returns:
        One file for each file of texts.
    """
    manifest = {"taps": list(taps), "texts": [path.name for path in texts], **facts}
    key = hashlib.sha256(repr(sorted(manifest.items())).encode()).hexdigest()[:16]
    place = folder / f"hidden-{key}"
    claim_folder(place / "hidden.json", manifest)
    files = []
    for number, path in enumerate(texts):
        mapped = place / f"{path.stem}.npy"
        files.append(mapped)
        if progress:
            progress("reading hidden states", number, len(texts))
        if not mapped.is_file():
            _write(target, TextShard.load(path), mapped, taps)
    return files


def _write(target: Target, shard: TextShard, path: Path, taps: Sequence[int]) -> None:
    rows = np.empty((len(shard.tokens), len(taps), target.hidden_size), dtype=np.uint16)
    for start, stop in zip(shard.starts[:-1], shard.starts[1:], strict=True):
        rows[start:stop] = to_bits(hidden_rows(target, shard.tokens[start:stop].tolist(), taps))
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.save(file, rows)
