"""``ventris``: the commands put together, and the entry point."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ventris import __version__
from ventris.cli import (
    batch,
    bench,
    chat,
    export,
    generate,
    info,
    papers,
    parts,
    reproduce,
    serve,
    stage,
    study,
    train,
)
from ventris.cli.default_command import PromptFirst
from ventris.cli.exits import exit_code_for
from ventris.cli.streams import prepare_streams

app = typer.Typer(
    name="ventris",
    cls=PromptFirst,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"ventris {__version__}")
        raise typer.Exit


@app.callback()
def ventris(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Decode with language models: drafters, verifiers, guides and policies in one loop.

    A prompt instead of a command generates: ventris "Explain hash tables."
    """


COMMANDS = (
    generate,
    chat,
    serve,
    batch,
    info,
    parts,
    papers,
    reproduce,
    study,
    bench,
    train,
    export,
    stage,
)
for command in COMMANDS:
    command.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        arguments: Those after the program's name; the process's own by default.
    """
    if "_VENTRIS_COMPLETE" in os.environ:
        app(prog_name="ventris")
    prepare_streams()
    try:
        command = typer.main.get_command(app)
        given = list(sys.argv[1:] if arguments is None else arguments)
        with command.make_context("ventris", given) as context:
            command.invoke(context)
        sys.stdout.flush()
    except BaseException as error:  # every end of a command has an exit code, an interrupt too
        return exit_code_for(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
