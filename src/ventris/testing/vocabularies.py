"""Small tokenizers made to order, for targets and draft models with vocabularies of their own."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from ventris.models.tokenizer import Tokenizer as OurTokenizer
from ventris.models.tokenizer import TokenizerFacts

END = "<end>"


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
