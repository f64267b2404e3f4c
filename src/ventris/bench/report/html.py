"""What all pages share: the frame, sections and tables. No script, nothing fetched, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from string import Template


def page(
    title: str, heading: str, lead: str, facts: str, body: Iterable[str], command: str = "ventris bench"
) -> str:
    """A whole page.

    Args:
        title, heading, lead, facts: Text.
        body: Sections that are HTML already; empty ones are left out.
        command: What made the page; text.
    """
    folder = resources.files("ventris.bench.report")
    return Template((folder / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        command=escape(command),
        style=(folder / "style.css").read_text(encoding="utf-8").strip(),
        heading=escape(heading),
        lead=escape(lead),
        facts=escape(facts),
        body="\n".join(part for part in body if part),
    )


def section(title: str, content: str) -> str:
    """A section; the title is text, the content HTML."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "", total: bool = False) -> str:
    """A table of cells that are HTML already; heads are text."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    head = f"<thead><tr>{head}</tr></thead>" if heads else ""
    lines = []
    for index, row in enumerate(rows):
        last = ' class="total"' if total and index == len(rows) - 1 else ""
        lines.append(f"<tr{last}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>")
    named = f' class="{kind}"' if kind else ""
    return f'<div class="scroll"><table{named}>{head}<tbody>{"".join(lines)}</tbody></table></div>'
