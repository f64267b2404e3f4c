"""``ventris "a prompt"``: what is no command is a prompt for ``generate``."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

from typer.core import TyperGroup

from ventris.engine.errors import BadInput

DEFAULT = "generate"


class PromptFirst(TyperGroup):
    """A group of commands in which ``generate`` may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args:
            args = ["--help"]
        elif args[0].startswith("-") and args[0] != "-":
            # `ventris -m model "a prompt"`: an option that only the default command knows.
            if args[0].partition("=")[0] in self._options_of_default(ctx):
                args = [DEFAULT, *args]
        elif args[0] not in self.commands:
            _refuse_misspelt_command(args[0], self.commands)
            args = [DEFAULT, *args]
        return list(super().parse_args(ctx, args))

    def _options_of_default(self, ctx: Any) -> set[str]:
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        return {name for parameter in self.commands[DEFAULT].params for name in parameter.opts} - own


def _refuse_misspelt_command(word: str, commands: Collection[str]) -> None:
    """A single word that is nearly a command was hardly meant as a prompt."""
    near = get_close_matches(word, commands, 1, cutoff=0.8)
    if near:
        raise BadInput(
            f"there is no command {word!r}; did you mean {near[0]!r}? (as a prompt: ventris {DEFAULT} {word})"
        )
