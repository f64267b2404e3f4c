"""The draft vocabulary: heads project on the most frequent tokens only.

A draft that leaves the shortlist is never proposed, which costs a little acceptance and no exactness: the
target still decides on every token over its whole vocabulary. What it saves is most of a head's time: with
SmolLM2-135M the full projection is a fifth of the model's weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NOT_LISTED = -1


class Shortlist:
    """Token ids that drafts are made of, ascending.

    Args:
        ids: Token ids, int64 ``[n]``, each once.
        vocab_size: Tokens of the target.

    Attributes:
        place: Index in the shortlist by token id, int64 ``[vocab]``; :data:`NOT_LISTED` for the others.
    """

    def __init__(self, ids: Tensor, vocab_size: int) -> None:
        self.ids = ids.to(torch.int64).sort().values
        self.vocab_size = vocab_size
        self.place = torch.full((vocab_size,), NOT_LISTED, dtype=torch.int64)
        self.place[self.ids] = torch.arange(len(self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def most_frequent(
        cls, tokens: Tensor, vocab_size: int, size: int, always: Iterable[int] = ()
    ) -> Shortlist:
        """The ``size`` most frequent tokens of a text; ties go to the lower id.

        Tokens that never occur fill the list in the order of their ids, which for BPE is the order in
        which merges were learnt, and so of frequency in the tokenizer's own training text.

        Args:
            tokens: The text, integer ``[n]``.
            size: Length of the list; 0, or as many as there are tokens, for the whole vocabulary.
            always: Tokens that belong to it whatever their frequency, such as the end of a text.
        """
        if not 0 < size < vocab_size:
            return cls(torch.arange(vocab_size), vocab_size)
        counts = torch.bincount(tokens.to(torch.int64), minlength=vocab_size)
        counts[list(always)] = counts.max() + 1
        return cls(counts.argsort(descending=True, stable=True)[:size], vocab_size)

    def coverage(self, tokens: Tensor) -> float:
        """Share of a text's tokens that are listed."""
        listed = self.place[tokens.to(torch.int64)] != NOT_LISTED
        return float(listed.float().mean()) if len(listed) else 1.0


def over_all(probs: Tensor, ids: NDArray[np.int64], vocab_size: int) -> Tensor:
    """Probabilities ``[listed]`` of the tokens ``ids`` as those of the whole vocabulary, 0 elsewhere."""
    whole = probs.new_zeros(vocab_size)
    whole[torch.from_numpy(ids)] = probs
    return whole
