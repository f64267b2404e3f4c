"""``ventris papers``: the registry of papers."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ventris.cli.answer_json import print_json
from ventris.cli.streams import console
from ventris.papers import GROUPS, Paper
from ventris.papers import paper as find_paper
from ventris.papers import papers as all_papers

STATE_STYLES = {"works": "green", "planned": "dim"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("papers")(papers)


def papers(
    slug: Annotated[str | None, typer.Argument(metavar="SLUG", help="show this paper in full")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List the papers behind the parts, what each claims, and whether it can be reproduced here."""
    if slug is None:
        entries = list(all_papers().values())
        if as_json:
            print_json([entry.model_dump(mode="json") for entry in entries])
        else:
            _print_list(entries)
        return
    entry = find_paper(slug)
    if as_json:
        print_json(entry.model_dump(mode="json"))
    else:
        _print_entry(entry)


def _print_list(entries: list[Paper]) -> None:
    """One table with a heading for each group, so that columns line up throughout."""
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("paper", style="bold", no_wrap=True, min_width=max(len(e.slug) for e in entries))
    table.add_column("title", no_wrap=True, ratio=3)
    table.add_column("year", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("claim", no_wrap=True, ratio=2)
    for group in GROUPS:
        members = [entry for entry in entries if entry.group == group]
        if not members:
            continue
        table.add_row()
        table.add_row("", Text(group, style="cyan"))
        for entry in members:
            state = Text(entry.state, style=STATE_STYLES[entry.state])
            table.add_row(entry.slug, Text(entry.title), str(entry.year), state, Text(entry.claim_figure))
    console().print(table)
    works = sum(entry.state == "works" for entry in entries)
    console().print(f"\n[dim]{len(entries)} papers, {works} can be reproduced: ventris reproduce SLUG[/dim]")


def _print_entry(entry: Paper) -> None:
    published = ", ".join(
        filter(None, [str(entry.year), entry.venue, f"arXiv {entry.arxiv}" if entry.arxiv else ""])
    )
    rows = {
        "authors": entry.authors,
        "published": published,
        "group": entry.group,
        "state": entry.state,
        "parts": ", ".join(entry.parts),
        "guarantee": entry.guarantee,
        "claim": entry.claim,
        "figure": entry.claim_figure,
        "reproduction": entry.reproduction,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in rows.items():
        style = STATE_STYLES[entry.state] if name == "state" else ""
        table.add_row(name, Text(value, style=style))
    title = Text(f"{entry.slug}: {entry.title}")
    console().print(Panel(table, title=title, title_align="left", padding=(1, 2)))
    if entry.state == "works":
        console().print(f"[dim]ventris reproduce {entry.slug}[/dim]")
