"""Batches of windows into the texts, in an order that depends on the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ventris.train.recorder import Bits, from_bits
from ventris.train.texts import TextShard


@dataclass(frozen=True, slots=True)
class Batch:
    """Some windows, padded to the longest.

    Attributes:
        tokens: int64 ``[B, L]``; 0 in the padding.
        answer: Tokens that the target said, bool ``[B, L]``; false in the padding.
        hidden: The target's rows by tapped layer, float32 ``[B, L, d]``.
        number: Which batch of the run it is, counted from 0.
    """

    tokens: Tensor
    answer: Tensor
    hidden: dict[int, Tensor]
    number: int = 0

    def to(self, device: torch.device) -> Batch:
        hidden = {layer: rows.to(device) for layer, rows in self.hidden.items()}
        return Batch(self.tokens.to(device), self.answer.to(device), hidden, self.number)


@dataclass(frozen=True, slots=True)
class Text:
    """One text with its hidden rows, still on disk."""

    tokens: NDArray[np.int32]
    answer: NDArray[np.bool_]
    rows: Bits
    prompt: int
    temperature: float


def open_texts(texts: Sequence[Path], hidden: Sequence[Path]) -> list[Text]:
    """All texts of a folder; hidden rows are mapped, not read."""
    opened = []
    for text_path, hidden_path in zip(texts, hidden, strict=True):
        shard = TextShard.load(text_path)
        mapped = np.load(hidden_path, mmap_mode="r") if len(shard) else np.empty((0, 0, 0), np.uint16)
        for index, (start, stop) in enumerate(zip(shard.starts[:-1], shard.starts[1:], strict=True)):
            opened.append(
                Text(
                    shard.tokens[start:stop],
                    shard.answer[start:stop],
                    mapped[start:stop],
                    int(shard.prompt[index]),
                    float(shard.temperature[index]),
                )
            )
    return opened


def split(texts: Sequence[Text], share: float, seed: int) -> tuple[list[Text], list[Text]]:
    """Training and held-out texts; all answers to one prompt fall on the same side.

    Held-out texts are the greedy ones where there are any: there the text *is* what the target would say,
    and being right about the next token is being accepted.
    """
    prompts = sorted({text.prompt for text in texts})
    shuffled = np.random.default_rng([seed, 1]).permutation(len(prompts))
    chosen = {prompts[index] for index in shuffled[: max(round(share * len(prompts)), 1)]}
    held = [text for text in texts if text.prompt in chosen]
    greedy = [text for text in held if text.temperature == 0.0]
    return [text for text in texts if text.prompt not in chosen], greedy or held


class Windows:
    """An endless, seeded sequence of batches.

    Each epoch visits every text once, in a new order; of a text longer than the window a random stretch is
    taken. Batch number n is a function of the seed and n, so a resumed run needs to remember nothing but n.

    Args:
        texts: What to draw from.
        taps: Layers that the hidden rows stand for.
        length: Tokens of a window at most.
        size: Windows of a batch.
        seed: Start of the order.
    """

    def __init__(self, texts: Sequence[Text], taps: Sequence[int], length: int, size: int, seed: int) -> None:
        self.texts = texts
        self.taps = taps
        self.length = length
        self.size = size
        self.seed = seed
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def batch(self, number: int) -> Batch:
        """Batch ``number``, counted from 0."""
        return self._collate([self._window(number * self.size + i) for i in range(self.size)], number)

    def once(self) -> Iterator[Batch]:
        """Every text once, from its beginning, in order."""
        for first in range(0, len(self.texts), self.size):
            some = self.texts[first : first + self.size]
            yield self._collate([(text, 0, min(len(text.tokens), self.length)) for text in some])

    def _window(self, place: int) -> tuple[Text, int, int]:
        epoch, within = divmod(place, len(self.texts))
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, 2, epoch]).permutation(len(self.texts))
            self._epoch = epoch
        index = int(self._order[within])
        text = self.texts[index]
        surplus = len(text.tokens) - self.length
        if surplus <= 0:
            return text, 0, len(text.tokens)
        start = int(np.random.default_rng([self.seed, 3, epoch, index]).integers(surplus + 1))
        return text, start, start + self.length

    def _collate(self, windows: Sequence[tuple[Text, int, int]], number: int = 0) -> Batch:
        longest = max(stop - start for _, start, stop in windows)
        tokens = torch.zeros((len(windows), longest), dtype=torch.int64)
        answer = torch.zeros((len(windows), longest), dtype=torch.bool)
        width = windows[0][0].rows.shape[-1]
        hidden = {layer: torch.zeros((len(windows), longest, width)) for layer in self.taps}
        for row, (text, start, stop) in enumerate(windows):
            count = stop - start
            tokens[row, :count] = torch.from_numpy(text.tokens[start:stop].astype(np.int64))
            answer[row, :count] = torch.from_numpy(text.answer[start:stop].copy())
            for place, layer in enumerate(self.taps):
                hidden[layer][row, :count] = from_bits(text.rows[start:stop, place])
        return Batch(tokens, answer, hidden, number)
