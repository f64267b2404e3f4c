"""``ventris train`` on the command line."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.testing import CliRunner

from ventris.cli import train


def app() -> typer.Typer:
    made = typer.Typer()
    made.callback()(lambda: None)
    train.register(made)
    return made


def arguments(given: dict, **changes: object) -> list[str]:
    words = ["train"]
    for key, value in {**given, **changes}.items():
        flag = "--temperature" if key == "temperatures" else f"--{key.replace('_', '-')}"
        words += [flag, str(value[0] if isinstance(value, list) else value)]
    return [words[0], "medusa", *words[1:]]


def test_it_trains_and_says_how_well(given):
    result = CliRunner().invoke(app(), arguments(given))
    assert result.exit_code == 0, result.output
    assert "held-out acceptance by depth: 0." in result.output
    assert (Path(given["out"]) / "config.json").is_file()


def test_medusa2_says_what_tuning_cost_and_how_to_use_it(given):
    words = ["train", "medusa2", *arguments(given, steps=5, head_steps=5, rank=4)[2:]]
    result = CliRunner().invoke(app(), words, env={"COLUMNS": "400"})
    assert result.exit_code == 0, result.output
    assert "against the original, on held-out answers: KL 0.0" in result.output
    assert f"--model {given['out']} --draft medusa:{given['out']}" in result.output
    assert (Path(given["out"]) / "medusa" / "config.json").is_file()


def test_help_lists_the_settings():
    for method in ("medusa", "medusa2", "hydra", "eagle"):
        result = CliRunner().invoke(
            app(), ["train", method, "--help"], env={"COLUMNS": "160", "TERM": "dumb"}
        )
        assert result.exit_code == 0
        for flag in ("--model", "--data", "--out", "--shortlist", "--device", "--loss", "--seed"):
            assert flag in result.output
