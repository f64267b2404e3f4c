"""Verifiers: which drafted path is kept, and what is the next token?"""

from ventris.verify.block import Block
from ventris.verify.judge import Judge
from ventris.verify.match import Coupled, Greedy, PointMass
from ventris.verify.rejection import Rejection
from ventris.verify.spectr import SpecTr
from ventris.verify.synthetic import Synthetic
from ventris.verify.threshold_rollback import ThresholdRollback
from ventris.verify.translated_rejection import TranslatedRejection
from ventris.verify.typical import Typical

__all__ = [
    "Block",
    "Coupled",
    "Greedy",
    "Judge",
    "PointMass",
    "Rejection",
    "SpecTr",
    "Synthetic",
    "ThresholdRollback",
    "TranslatedRejection",
    "Typical",
]
