"""Drafted ids to target tokens, longest merger first, and what is known of the law they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ventris.draft.omnidraft.byte_map import NONE, ByteMap
from ventris.draft.omnidraft.mergers import Mergers


@dataclass(frozen=True, slots=True)
class Word:
    """A target token and the drafted ids ``start .. stop - 1`` that it stands for; the bytes are the same."""

    token: int
    start: int
    stop: int


class Translator:
    """Reads drafted ids as the target would write them.

    Args:
        map: The two vocabularies.
        mergers: What has been learnt of the target's longer tokens.
    """

    def __init__(self, map: ByteMap, mergers: Mergers) -> None:
        self.map = map
        self.mergers = mergers
        mapped = map.target_of != NONE
        self._mapped = torch.from_numpy(mapped.nonzero()[0])
        self._counterparts = torch.from_numpy(map.target_of[mapped])

    def translate(self, ids: Sequence[int]) -> list[Word]:
        """Target tokens for a beginning of ``ids``: up to the first id that has no translation."""
        words: list[Word] = []
        place = 0
        while place < len(ids):
            merged = self.mergers.longest_at(ids, place)
            token = int(self.map.target_of[ids[place]])
            if merged is not None:
                words.append(Word(merged[1], place, place + merged[0]))
            elif token != NONE:
                words.append(Word(token, place, place + 1))
            else:
                break
            place = words[-1].stop
        return words

    def may_go_on(self, ids: Sequence[int], words: Sequence[Word]) -> bool:
        """False if nothing drafted after ``ids`` could be translated any more."""
        done = words[-1].stop if words else 0
        return done == len(ids) or self.mergers.begins(ids[done:])

    def law(self, start: int, ids: Sequence[int], laws: Sequence[Tensor], target_size: int) -> Tensor:
        """What the paper takes for the law of the target token that begins at ``ids[start]`` (its q').

        A token with a counterpart has the counterpart's probability. A merger along the drafted ids has the
        product of its pieces' probabilities, and its first piece has so much less. Mergers that begin
        otherwise are not counted: their later pieces' probabilities are not known. So the law is right for
        the drafted token and incomplete elsewhere, and its sum is at most 1.

        Args:
            laws: The law that each of ``ids`` was drawn from, ``[draft_size]``.

        Returns:
            ``[target_size]``, of the dtype of ``laws``.
        """
        first = laws[start]
        law = torch.zeros(target_size, dtype=first.dtype)
        law.index_put_((self._counterparts,), first[self._mapped], accumulate=True)
        chance = 1.0
        for place in range(start + 1, min(start + self.mergers.longest, len(laws))):
            chance *= float(laws[place - 1][ids[place - 1]])
            for piece, token in self.mergers.completions(ids[start:place]):
                share = chance * float(laws[place][piece])
                law[token] += share
                alone = int(self.map.target_of[ids[start]])
                if alone != NONE:
                    law[alone] -= share
        return law.clamp_min_(0)
