"""Small tokenizers made to order, for targets and draft models with vocabularies of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from ventris.draft.omnidraft.byte_map import ByteMap
from ventris.draft.omnidraft.drafter import OmniDraft
from ventris.draft.omnidraft.mergers import Mergers
from ventris.draft.omnidraft.teaching import Teaching
from ventris.draft.omnidraft.translator import Translator
from ventris.engine.target import Target
from ventris.models.tokenizer import Tokenizer as OurTokenizer
from ventris.models.tokenizer import TokenizerFacts


def made_tokenizer(pieces: Sequence[str], special: Sequence[str] = ()) -> OurTokenizer:
    """A byte-level tokenizer whose ids are ``special``, then ``pieces``.

    Args:
        pieces: In the alphabet of byte-level tokenizers (printable ASCII stands for itself, ``Ġ`` for a
            space). One of several characters needs two others that it can be merged from.
        special: Tokens that stand for no text; the first one ends a text.

    Raises:
        ValueError: naming a piece that cannot be merged.
    """
    vocabulary = {piece: id for id, piece in enumerate([*special, *pieces])}
    merges = [_merge(piece, pieces) for piece in pieces if len(piece) > 1]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return OurTokenizer(backend, TokenizerFacts(eos_ids=(0,) if special else ()))


def _merge(piece: str, known: Sequence[str]) -> tuple[str, str]:
    for cut in range(len(piece) - 1, 0, -1):
        if piece[:cut] in known and piece[cut:] in known:
            return piece[:cut], piece[cut:]
    raise ValueError(f"{piece!r} cannot be merged from two other pieces")


def translating_drafter(
    model: Target,
    pieces: Sequence[str],
    target_pieces: Sequence[str],
    mergers: Iterable[tuple[tuple[int, ...], int]] = (),
    special: Sequence[str] = (),
    target_size: int | None = None,
    **settings: Any,
) -> OmniDraft:
    """OmniDraft without weights that could learn, between two vocabularies made to order.

    Args:
        model: The draft model; ``pieces`` are what its ids mean.
        target_pieces: What the target's ids mean.
        mergers: What is known of the target's longer tokens to begin with.
        special: Special tokens of both, before their pieces.
        target_size: Rows of the target's logits, where they are more than its ids.
        settings: As for :class:`~ventris.draft.omnidraft.drafter.OmniDraft`.
    """
    tokenizer, targets = made_tokenizer(pieces, special), made_tokenizer(target_pieces, special)
    map = ByteMap(tokenizer, targets, model.vocab_size, target_size or targets.vocab_size)
    known = Mergers()
    for ids, token in mergers:
        known.learn(ids, token)
    return OmniDraft(model, Translator(map, known), Teaching(known), **settings)
