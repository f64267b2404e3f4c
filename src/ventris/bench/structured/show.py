"""The report on a terminal, as JSON, and as one self-contained page."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ventris.bench.report.html import page, section, table
from ventris.bench.report.table import terminal_table
from ventris.bench.structured.record import StructuredReport, Table
from ventris.engine.errors import BadInput
from ventris.models.cache_folder import written_whole


def print_structured(report: StructuredReport, console: Console) -> None:
    """Print the tables, what their words mean, and the headline."""
    findings = report.findings
    for warning in findings.warnings:
        console.print(f"[yellow]warning:[/] {warning}", highlight=False)
    for found in findings.tables:
        console.print(_terminal(found))
        if found.note:
            console.print(Text(found.note, style="dim"), soft_wrap=False)
    console.print(
        Text(f"\n{report.machine['processor']}; {report.seconds:.0f} s", style="dim"), highlight=False
    )
    console.print(Text(findings.headline, style="bold"))


def write_structured(report: StructuredReport, json_file: str | None, html_file: str | None) -> None:
    """Write the files that are asked for, each whole or not at all.

    Raises:
        BadInput: if one cannot be written.
    """
    texts = {json_file: to_json, html_file: render_structured}
    for name, write in texts.items():
        if name is None:
            continue
        try:
            with written_whole(Path(name).expanduser()) as temporary:
                temporary.write_text(write(report), encoding="utf-8")
        except OSError as error:
            raise BadInput(f"cannot write {name}: {error.strerror}") from None


def to_json(report: StructuredReport) -> str:
    """The report with all results as one JSON object."""
    return json.dumps(report.model_dump(mode="json"), allow_nan=False, indent=1, ensure_ascii=False)


def render_structured(report: StructuredReport) -> str:
    """The report as a page that fetches nothing."""
    findings = report.findings
    settings = ", ".join(f"{k} {v}" for k, v in report.settings.items() if v not in (None, [], ""))
    facts = {**report.machine, "settings": settings}
    rows = [[escape(name), escape(value)] for name, value in facts.items() if value]
    body = [
        *(f'<p class="warning">Warning: {escape(warning)}</p>' for warning in findings.warnings),
        *(_section(found) for found in findings.tables),
        section("Environment", table([], rows, "words")),
    ]
    created = report.created.replace("T", " ").removesuffix("+00:00")
    return page(
        title=f"Ventris bench: structured output, {report.protocol}",
        heading=f"Structured output: {report.protocol}",
        lead=findings.headline,
        facts=f"{report.seconds:.0f} s · {report.machine['processor']} · {created} UTC",
        body=body,
    )


def _section(found: Table) -> str:
    cells = [[escape(cell) for cell in row] for row in found.rows]
    note = f'<p class="note">{escape(found.note)}</p>' if found.note else ""
    return section(found.title, table(found.heads, cells, "words" if found.words else "") + note)


def _terminal(found: Table) -> object:
    shown = terminal_table(found.title, found.heads[0], found.heads[1:], words=found.words)
    for row in found.rows:
        shown.add_row(*(Text(cell) for cell in row))
    return shown
