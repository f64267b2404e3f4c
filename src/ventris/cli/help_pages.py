"""The reference pages, written from the program itself: ``python -m ventris.cli.help_pages [--check]``.

Nothing in them depends on the machine: help is set in a fixed width, and only built-in parts are listed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ventris.bench.settings import BenchSettings
from ventris.bench.structured.settings import StructuredSettings
from ventris.cli.field_text import bounds_text, default_text, type_text
from ventris.cli.form import FormOptions
from ventris.cli.main import app
from ventris.cli.option_fields import OptionField, option_fields
from ventris.cli.part_cards import full_card
from ventris.cli.parts import QUESTIONS
from ventris.cli.settings import OPTION_FIELDS, ConversationOptions, ModelOptions
from ventris.options import GenerationOptions
from ventris.parts import BUILT_IN

WIDTH = 100
FOLDER = Path(__file__).parents[3] / "docs" / "reference"
NOTE = "<!-- Written by `python -m ventris.cli.help_pages`; edit the program, not this page. -->\n"


def pages() -> dict[str, str]:
    """Every page by its file name."""
    return {"cli.md": cli_page(), "parts.md": parts_page(), "settings.md": settings_page()}


def stale_pages(folder: Path) -> list[str]:
    """Names of the pages that are missing or no longer true."""
    return [
        name
        for name, text in pages().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


def cli_page() -> str:
    """The help of every command."""
    sections = ["# The command line", NOTE]
    sections += [
        "Exit codes: 0 for success, 1 when decoding failed or memory ran out, 2 for bad input (one line on "
        "stderr says what is wrong), 70 for a bug (`VENTRIS_DEBUG=1` shows the traceback), 130 after Ctrl-C, "
        "141 when the reader of stdout is gone.\n"
    ]
    for path, text in _helps(typer.main.get_command(app), "ventris"):
        sections.append(f"## {path}\n\n```text\n{text}\n```\n")
    return "\n".join(sections)


def parts_page() -> str:
    """All built-in parts with their options."""
    sections = ["# Parts", NOTE]
    sections += [
        "A part is written `name`, `name:value` (its first option) or `name:option=value,option=value`; in "
        "YAML and Python also as a mapping, `{name: {option: value}}`. Other packages add parts by entry "
        "points; `ventris parts` lists those too.\n"
    ]
    for kind, names in BUILT_IN.items():
        question, _, flag = QUESTIONS[kind].partition("  ")
        title = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
        sections.append(f"## {title.capitalize()}: {question} (`{flag.strip()}`)\n")
        for name in names:
            card = full_card(kind, name)
            promise = "" if card.exact is None else " *Exact.*" if card.exact else " *Approximate.*"
            sections.append(f"### {name}\n\n{card.summary}.{promise}\n")
            sections.append(_option_table((card.options or {}).items()) if card.options else "No options.\n")
        if not names:
            sections.append("None yet.\n")
    return "\n".join(sections)


def settings_page() -> str:
    """Settings of models, generations and benchmarks."""
    spelled = {field.key: field for field in OPTION_FIELDS}
    measured = {field.key: field for field in option_fields(BenchSettings, lambda key: "")}
    of_form = {field.key: field for field in option_fields(StructuredSettings, lambda key: "")}
    return "\n".join(
        [
            "# Settings",
            NOTE,
            "The same names in Python (`model.generate(prompt, temperature=0.7)`), as options, and in the "
            "file of `--config`.\n",
            "## Generation\n",
            _settings_table(GenerationOptions, spelled),
            "## Form of the answer (options and file only; each is short for a guide)\n",
            _settings_table(FormOptions, spelled),
            "## Chat template\n",
            _settings_table(ConversationOptions, spelled),
            "## Model\n",
            _settings_table(ModelOptions, spelled),
            "## Benchmark\n",
            _settings_table(BenchSettings, measured),
            "## Benchmark of guaranteed form\n",
            _settings_table(StructuredSettings, of_form),
        ]
    )


def _helps(command: Any, path: str) -> Iterator[tuple[str, str]]:
    # Without markup the help is plain text, whatever terminal this runs on.
    command.rich_markup_mode = None
    context = command.context_class(command, info_name=path, terminal_width=WIDTH, max_content_width=WIDTH)
    yield path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    for name, child in getattr(command, "commands", {}).items():
        yield from _helps(child, f"{path} {name}")


def _option_table(fields: Iterable[tuple[str, FieldInfo]]) -> str:
    rows = [
        (f"`{name}`", type_text(field), bounds_text(field), default_text(field), field.description or "")
        for name, field in fields
    ]
    return _table(("option", "type", "range", "default", "meaning"), rows)


def _settings_table(model: type[BaseModel], options: dict[str, OptionField]) -> str:
    rows = []
    for name, field in model.model_fields.items():
        flag = f"`{options[name].flag}`" if name in options else ""
        meaning = field.description or ""
        rows.append((f"`{name}`", flag, type_text(field), bounds_text(field), default_text(field), meaning))
    return _table(("setting", "option", "type", "range", "default", "meaning"), rows)


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` name those that should be written anew."""
    if arguments == ["--check"]:
        stale = stale_pages(FOLDER)
        for name in stale:
            print(f"{name} is stale; run python -m ventris.cli.help_pages", file=sys.stderr)
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
