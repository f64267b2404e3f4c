"""The registry of papers: one entry a paper, with its parts, its claim and its reproduction.

``reproduce`` here is the function; its table is ``from ventris.papers.reproduce import REPRODUCTIONS``.
"""

from ventris.papers.entry import GROUPS, PART_KINDS, Paper
from ventris.papers.registry import InconsistentRegistry, UnknownPaper, paper, papers
from ventris.papers.reproduce import NotYetBuilt, reproduce
from ventris.papers.reproduction import Reproduction, Row

__all__ = [
    "GROUPS",
    "PART_KINDS",
    "InconsistentRegistry",
    "NotYetBuilt",
    "Paper",
    "Reproduction",
    "Row",
    "UnknownPaper",
    "paper",
    "papers",
    "reproduce",
]
