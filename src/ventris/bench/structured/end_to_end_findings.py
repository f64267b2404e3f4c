"""From the documents of the end-to-end protocol to tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from ventris.bench.report.wording import DASH
from ventris.bench.structured import words
from ventris.bench.structured.back_ends import LM_ONLY
from ventris.bench.structured.end_to_end import Document
from ventris.bench.structured.mask_findings import keyword_of
from ventris.bench.structured.record import Findings, Table

Rows = dict[str, list[Document]]


def document_findings(
    documents: Sequence[Document], rows: Sequence[str], max_new_tokens: int, too_long: int, seed: int
) -> Findings:
    """Coverage, compliance and times of every row, side by side.

    Args:
        rows: Names in the order of the tables.
        too_long: Schemas left out for the length of their prompt.
    """
    own = {row: [document for document in documents if document.back_end == row] for row in rows}
    shared = _finished_by_all(own)
    tables = [
        _coverage(own, max_new_tokens, seed),
        _by_source(own),
        _times(own, shared, seed),
        _finished_invalid(own),
    ]
    for name in rows:
        refusals = (keyword_of(d.reason) for d in own[name] if d.status == "refused")
        tables.append(words.counted(f"{name}: refused, by keyword", "keyword or reason", refusals))
    tables.append(_disagreements(documents))
    shown = [table for table in tables if table is not None]
    warnings = []
    if too_long:
        warnings.append(
            f"{too_long} schemas were left out before the sample was drawn: their prompt is too long"
        )
    figures: dict[str, Any] = {name: _figures(some) for name, some in own.items()}
    figures["finished_by_all"] = len(shared)
    return Findings(headline=_headline(own), tables=shown, figures=figures, warnings=warnings)


def _declared(some: Sequence[Document]) -> list[Document]:
    return [document for document in some if document.status == "accepted"]


def _covered(document: Document) -> bool:
    return document.status == "accepted" and document.finished and document.valid


def _finished_by_all(own: Rows) -> list[str]:
    """Schemas whose document every row finished, so that medians compare the same work."""
    finished = [{d.name for d in _declared(some) if d.finished} for some in own.values()]
    return sorted(set.intersection(*finished)) if finished else []


def _coverage(own: Rows, max_new_tokens: int, seed: int) -> Table:
    lines = []
    for name, some in own.items():
        declared = _declared(some)
        lines.append(
            [
                name,
                str(len(some)),
                DASH if name == LM_ONLY else words.share(len(declared), len(some)),
                words.share_interval([_covered(d) for d in some], seed),
                words.share(sum(map(_covered, some)), len(declared)),
                words.share(sum(d.parses for d in some), len(some)),
                str(sum(not d.finished for d in declared)),
                words.share(sum(d.finished and d.valid for d in declared), sum(d.finished for d in declared)),
                str(sum(d.unfenced and d.finished for d in some)),
            ]
        )
    note = (
        "Declared: the schema was accepted. Empirical: of all schemas, the greedy answer ended by itself "
        f"within {max_new_tokens} tokens, is JSON, and neither validator objects (95 % bootstrap interval)."
        " Compliance: of the declared ones. Unfinished: the tokens ran out first; never counted as valid. "
        "Fenced: would be valid without the code fence around it; not counted in the columns before."
    )
    heads = ["row", "schemas", "declared", "empirical", "compliance", "JSON", "unfinished"]
    return Table(title="Coverage", heads=[*heads, "valid of the finished", "fenced"], rows=lines, note=note)


def _by_source(own: Rows) -> Table:
    sources = sorted({document.source for some in own.values() for document in some})
    lines = []
    for source in sources:
        here = {name: [d for d in some if d.source == source] for name, some in own.items()}
        count = max(len(some) for some in here.values())
        lines.append(
            [source, str(count), *(words.share(sum(map(_covered, d)), len(d)) for d in here.values())]
        )
    return Table(title="Empirical coverage by source", heads=["source", "schemas", *own], rows=lines)


def _times(own: Rows, shared: Sequence[str], seed: int) -> Table:
    lines = []
    for name, some in own.items():
        here = [document for document in some if document.name in set(shared)]
        tokens = [document.token_seconds for document in here if document.token_seconds is not None]
        compiled = [] if name == LM_ONLY else [document.compile_seconds for document in here]
        lines.append(
            [
                name,
                words.median_interval(compiled, seed),
                words.median_interval([document.first_token_seconds for document in here], seed),
                words.median_interval(tokens, seed),
                f"{median(document.new_tokens for document in here):.0f}" if here else DASH,
            ]
        )
    note = (
        f"Medians with 95 % bootstrap intervals over the {len(shared)} schemas that every row finished, "
        "batch 1. Time to first token holds compiling and reading the prompt. A token that is forced "
        "counts as one."
    )
    heads = ["row", "compile", "first token", "per token", "tokens"]
    return Table(title="Times", heads=heads, rows=lines, note=note)


def _finished_invalid(own: Rows) -> Table | None:
    """Documents of guided rows that ended and are not valid: broken promises, unless the user is told."""
    lines = []
    for name, some in own.items():
        for d in _declared(some):
            if name != LM_ONLY and d.finished and not d.valid:
                told = {None: "nothing", True: "that it is valid", False: "that it is not"}[d.said_valid]
                lines.append([name, d.name, told, ", ".join(d.checked_at_end), d.reason[:120]])
    if not lines:
        return None
    heads = ["row", "schema", "the user is told", "left to the check at the end", "complaint"]
    return Table(title="Finished, but not valid", heads=heads, rows=lines, words=True)


def _disagreements(documents: Sequence[Document]) -> Table | None:
    lines = [
        [d.back_end, d.name, str(d.reference), str(d.second), d.reason[:120]] for d in documents if d.disagree
    ]
    if not lines:
        return None
    note = "Such a document does not count as valid."
    heads = ["row", "schema", "jsonschema", "jsonschema-rs", "complaint"]
    return Table(title="Validators that disagree", heads=heads, rows=lines, note=note, words=True)


def _figures(some: Sequence[Document]) -> dict[str, Any]:
    declared = _declared(some)
    return {
        "schemas": len(some),
        "declared_coverage": len(declared) / len(some) if some else None,
        "empirical_coverage": sum(map(_covered, some)) / len(some) if some else None,
        "finished": sum(d.finished for d in declared),
        "finished_invalid": [d.name for d in declared if d.finished and not d.valid],
        "finished_called_valid_wrongly": [
            d.name for d in declared if d.finished and d.said_valid and not d.valid
        ],
        "fenced": sum(d.unfenced and d.finished for d in some),
    }


def _headline(own: Rows) -> str:
    parts = [f"{name} {words.share(sum(map(_covered, some)), len(some))}" for name, some in own.items()]
    alone = sum(map(_covered, own.get(LM_ONLY, [])))
    others = {name: sum(map(_covered, some)) for name, some in own.items() if name != LM_ONLY}
    text = f"Empirical coverage: {', '.join(parts)}."
    if alone and others:
        first = next(iter(others))
        text += f" {first} covers {others[first] / alone:.1f} times as many schemas as {LM_ONLY}."
    return text
