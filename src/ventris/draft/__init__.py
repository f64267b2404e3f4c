"""Drafters: what may come next?"""

from ventris.draft.aligned import Aligned
from ventris.draft.chimera import Chimera
from ventris.draft.eagle import Eagle
from ventris.draft.falcon import Falcon
from ventris.draft.hydra import Hydra
from ventris.draft.kangaroo import Kangaroo
from ventris.draft.longspec import LongSpec
from ventris.draft.medusa import Medusa
from ventris.draft.model import DraftModel
from ventris.draft.ngram import NGram
from ventris.draft.stack import Stack

__all__ = [
    "Aligned",
    "Chimera",
    "DraftModel",
    "Eagle",
    "Falcon",
    "Hydra",
    "Kangaroo",
    "LongSpec",
    "Medusa",
    "NGram",
    "Stack",
]
