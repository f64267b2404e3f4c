"""Drafters: what may come next?"""

from ventris.draft.model import DraftModel
from ventris.draft.ngram import NGram
from ventris.draft.stack import Stack

__all__ = ["DraftModel", "NGram", "Stack"]
