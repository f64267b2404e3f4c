"""Two vocabularies side by side: which ids mean the same bytes, and how one spells the other's tokens.

Everything goes by bytes, never by text: a token may hold a part of a character, and a text that is decoded
and encoded again may come back as other tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ventris.engine.errors import BadInput
from ventris.models.tokenizer import Tokenizer

NONE = -1
"""Stands where an id has no counterpart."""

LONGEST = 64
"""Bytes that a token is looked for over, where a text has to be cut up by hand."""


class ByteMap:
    """A draft vocabulary beside a target's (the direct map of OmniDraft, and the way back).

    Special tokens correspond by name; the ends and beginnings of a text also where they are named
    differently. A special token of the target without a counterpart is spelled by its name.

    Args:
        draft: The draft model's tokenizer.
        target: The target's.
        draft_size, target_size: Rows of logits of the two models; more than the ids where they are padded.

    Attributes:
        target_of: Target id with the same bytes, or :data:`NONE`, int64 ``[draft_size]``.
        draft_of: Likewise the other way round, int64 ``[target_size]``.

    Raises:
        BadInput: if the draft vocabulary cannot spell all that the target may say.
    """

    def __init__(self, draft: Tokenizer, target: Tokenizer, draft_size: int, target_size: int) -> None:
        self.draft, self.target = draft, target
        self._draft_ids, target_ids = _ids_by_bytes(draft), _ids_by_bytes(target)
        self._check_spells()
        self.target_of = _table(draft_size, {**_matches(draft, target_ids), **_specials(draft, target)})
        self.draft_of = _table(target_size, {**_matches(target, self._draft_ids), **_specials(target, draft)})
        self._lead, self._skip = _lead_of(draft)
        self._spelled: dict[int, tuple[int, ...]] = {}

    def _check_spells(self) -> None:
        missing = set(b"".join(self.target.vocabulary_bytes))
        missing -= {spelled[0] for spelled in self._draft_ids if len(spelled) == 1}
        for token, spelled in enumerate(self.target.vocabulary_bytes if missing else ()):
            for byte in missing.intersection(spelled):
                raise BadInput(
                    f"the draft model's vocabulary has no token for the byte 0x{byte:02x}, which the "
                    f"target's token {token} holds; take a draft model with a byte-level tokenizer"
                )

    def spell(self, token: int) -> tuple[int, ...]:
        """Draft ids with exactly the bytes of a target token; none for an id that means nothing."""
        known = self._spelled.get(token)
        if known is None:
            known = self._spelled[token] = self._spell(token)
        return known

    def _spell(self, token: int) -> tuple[int, ...]:
        if 0 <= token < len(self.draft_of) and self.draft_of[token] != NONE:
            return (int(self.draft_of[token]),)
        return tuple(self.spell_bytes(self.target.token_bytes(token)))

    def spell_bytes(self, data: bytes) -> list[int]:
        """Draft ids with exactly these bytes: those that the tokenizer chooses, wherever that is byte-exact.

        It is not where the bytes are no whole characters, or where a tokenizer changes what it reads; there
        the longest token that fits is taken, again and again.
        """
        try:
            ids = self.draft.encode(self._lead + data.decode())[self._skip :]
        except UnicodeDecodeError:
            return self._longest_first(data)
        return ids if self.bytes_of(ids) == data else self._longest_first(data)

    def _longest_first(self, data: bytes) -> list[int]:
        ids: list[int] = []
        place = 0
        while place < len(data):
            lengths = range(min(LONGEST, len(data) - place), 0, -1)
            length = next(n for n in lengths if data[place : place + n] in self._draft_ids)
            ids.append(self._draft_ids[data[place : place + length]])
            place += length
        return ids

    def read(self, tokens: Sequence[int]) -> list[int]:
        """Draft ids of a text of the target's: whole stretches between special tokens, as a prompt is read.

        The beginning-of-text token comes first where the draft model wants one.
        """
        ids: list[int] = []
        special = self.target.special_ids
        for is_special, run in groupby(tokens, key=special.__contains__):
            if is_special:
                ids += [id for token in run for id in self.spell(token)]
            else:
                ids += self.spell_bytes(b"".join(map(self.target.token_bytes, run)))
        begin = self.draft.bos_id
        if self.draft.facts.add_bos and begin is not None and ids[:1] != [begin]:
            ids.insert(0, begin)
        return ids

    def bytes_of(self, ids: Iterable[int]) -> bytes:
        """The bytes of draft ids."""
        return b"".join(map(self.draft.token_bytes, ids))

    @property
    def shared(self) -> float:
        """Share of the target's tokens that have a counterpart."""
        used = sum(bool(spelled) for spelled in self.target.vocabulary_bytes)
        return float((self.draft_of != NONE).sum()) / max(used, 1)


def _matches(tokenizer: Tokenizer, others: dict[bytes, int]) -> dict[int, int]:
    """For the ordinary ids of a vocabulary those of another one with the same bytes."""
    spelled = enumerate(tokenizer.vocabulary_bytes)
    return {id: others[b] for id, b in spelled if b in others and id not in tokenizer.special_ids}


def _ids_by_bytes(tokenizer: Tokenizer) -> dict[bytes, int]:
    """The id of each byte string; of several with one meaning the one that the tokenizer itself writes."""
    found: dict[bytes, int] = {}
    for number, spelled in enumerate(tokenizer.vocabulary_bytes):
        if not spelled or number in tokenizer.special_ids:
            continue
        if spelled not in found or _written(tokenizer, spelled) == number:
            found[spelled] = number
    return found


def _written(tokenizer: Tokenizer, spelled: bytes) -> int:
    try:
        ids = tokenizer.encode(spelled.decode())
    except UnicodeDecodeError:
        return NONE
    return ids[0] if len(ids) == 1 else NONE


def _specials(one: Tokenizer, other: Tokenizer) -> dict[int, int]:
    """For the special ids of one vocabulary those of the other: by name, or by what they are for."""
    by_name = {other.token_bytes(id): id for id in other.special_ids}
    found = {id: by_name[one.token_bytes(id)] for id in one.special_ids if one.token_bytes(id) in by_name}
    if one.bos_id is not None and other.bos_id is not None:
        found.setdefault(one.bos_id, other.bos_id)
    if other.eos_ids:
        for end in one.eos_ids:
            found.setdefault(end, other.eos_ids[0])
    return found


def _table(size: int, pairs: dict[int, int]) -> NDArray[np.int64]:
    table = np.full(size, NONE, np.int64)
    for id, counterpart in pairs.items():
        if id < size:
            table[id] = counterpart
    return table


def _lead_of(tokenizer: Tokenizer) -> tuple[str, int]:
    """What to put before a piece so that it is read as the middle of a text, and how many ids that takes."""
    if b"".join(map(tokenizer.token_bytes, tokenizer.encode("a"))) == b"a":
        return "", 0
    # SentencePiece puts a space before every text; behind a line break it does not.
    return "\n", len(tokenizer.encode("\n"))
