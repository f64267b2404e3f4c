"""What ``ventris bench structured`` hands back: tables of words, and every result behind them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ventris.bench.record import Load

Protocol = Literal["mask", "suite", "end-to-end", "cost", "quality", "hostile"]


class Table(BaseModel):
    """A table ready to be shown.

    Attributes:
        heads: Of the columns; the first column holds names.
        note: What a reader must know about it.
        words: The cells are sentences rather than figures.
    """

    model_config = ConfigDict(extra="forbid")

    title: str
    heads: list[str]
    rows: list[list[str]]
    note: str = ""
    words: bool = False


class Findings(BaseModel):
    """What a protocol found.

    Attributes:
        headline: In one sentence.
        figures: For programs, by name.
        warnings: What a reader must know before he believes a figure.
    """

    model_config = ConfigDict(extra="forbid")

    headline: str
    tables: list[Table]
    figures: dict[str, Any] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)


class StructuredReport(BaseModel):
    """A whole run.

    Attributes:
        created: UTC, ISO 8601.
        seconds: How long this run measured, without what a journal already held.
        results: One object for everything that was tried.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    protocol: Protocol
    created: str
    seconds: float
    settings: dict[str, Any]
    machine: dict[str, str]
    load: Load
    findings: Findings
    results: list[dict[str, Any]]
