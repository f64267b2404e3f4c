"""``ventris parts``: what can be put together."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ventris.cli.answer_json import print_json
from ventris.cli.field_text import bounds_text, default_text, type_text
from ventris.cli.part_cards import PartCard, brief_card, cards_named, full_card, kind_of
from ventris.cli.streams import console
from ventris.parts import BUILT_IN, available

QUESTIONS = {
    "drafter": "what may come next?  --draft",
    "verifier": "which drafts are kept?  --verifier",
    "guide": "what should the distribution be instead?  --guide",
    "policy": "how much to draft?  --policy",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("parts")(parts)


def parts(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="drafter, verifier, guide or policy, or the name of one part"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, with all options")] = False,
) -> None:
    """List drafters, verifiers, guides and policies, also those of other packages; KIND shows options too."""
    if kind is None and not as_json:
        _print_overview()
        return
    wanted = kind_of(kind, BUILT_IN) if kind is not None else None
    if kind is not None and wanted is None:
        cards = cards_named(kind, BUILT_IN)
    else:
        kinds = [wanted] if wanted else list(BUILT_IN)
        cards = [full_card(each, name) for each in kinds for name in available(each)]
    if as_json:
        print_json([card.as_dict() for card in cards])
        return
    if not cards:
        console().print(f"[dim]there is no {wanted} yet[/dim]")
    for card in cards:
        _print_card(card)


def _print_overview() -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for kind, question in QUESTIONS.items():
        table.add_row(Text(kind, style="cyan"), "", Text(question, style="dim"))
        for name in available(kind):
            card = brief_card(kind, name)
            table.add_row(f"  {name}", _guarantee(card), Text(card.summary))
        if not available(kind):
            table.add_row(Text("  none yet", style="dim"))
        table.add_row()
    console().print(table)
    console().print("[dim]ventris parts KIND shows the options[/dim]")


def _guarantee(card: PartCard) -> Text:
    if card.exact is None:
        return Text("")
    return Text("exact", style="green") if card.exact else Text("approximate", style="yellow")


def _print_card(card: PartCard) -> None:
    heading = Text.assemble((card.name, "bold"), " ", (card.kind, "cyan"), " ", _guarantee(card))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, field in (card.options or {}).items():
        default = default_text(field)
        table.add_row(
            name,
            Text(" ".join(filter(None, [type_text(field), bounds_text(field)])), style="dim"),
            Text(f"= {default}" if default and not field.is_required() else default),
            Text(field.description or ""),
        )
    body = table if card.options else Text("no options", style="dim")
    console().print(Group(heading, Padding(Group(Text(card.summary), body), (0, 0, 1, 2))))
