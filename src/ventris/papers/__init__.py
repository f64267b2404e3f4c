"""The registry of papers: one entry a paper, with its parts, its claim and its reproduction.

``reproduce`` here is the function; its table stands in :mod:`ventris.papers.reproduction_table`.
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
