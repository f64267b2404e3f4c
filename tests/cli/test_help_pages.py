"""The reference pages and the help are what the program does."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Run

from ventris.cli import help_pages
from ventris.options import GenerationOptions


def test_the_pages_are_fresh() -> None:
    stale = help_pages.stale_pages(help_pages.FOLDER)
    assert not stale, f"stale: {', '.join(stale)}; run python -m ventris.cli.help_pages"


def test_the_pages_name_no_machine() -> None:
    text = "".join(help_pages.pages().values())
    assert "\x1b" not in text
    assert str(Path.home()) not in text


def test_check_finds_a_stale_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(help_pages, "FOLDER", tmp_path)
    monkeypatch.setattr(help_pages, "pages", lambda: {"cli.md": "new\n"})
    assert help_pages.main(["--check"]) == 1
    assert help_pages.main([]) == 0
    assert help_pages.main(["--check"]) == 0
    assert "cli.md is stale" in capsys.readouterr().err


def test_every_setting_is_an_option(run: Run) -> None:
    shown = run("generate", "--help").out
    for field in help_pages.OPTION_FIELDS:
        assert field.flag in shown
    assert {field.key for field in help_pages.OPTION_FIELDS} >= set(GenerationOptions.model_fields) - {
        "trace"
    }


def test_ventris_alone_prints_help(run: Run) -> None:
    assert "generate" in run().out
    assert run().out == run("--help").out
