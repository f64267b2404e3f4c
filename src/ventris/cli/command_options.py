"""Commands that take the fields of pydantic models as options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import typer

from ventris.cli.option_fields import OptionField

FURTHER_FLAGS = {
    "model": ("-m",),
    "methods": ("--methods",),
    "peers": ("--peers",),
    "per_category": ("--prompts",),
    "categories": ("--categories",),
    "json_file": ("--json",),
    "html_file": ("--html",),
}
"""Other spellings of options, by the field's name."""

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def with_options(
    command: Callable[..., None],
    place: str,
    fields: Sequence[OptionField],
    further: Sequence[inspect.Parameter],
    read: Callable[..., Any],
) -> Callable[..., None]:
    """The command as typer should see it: options instead of the parameter ``place``.

    Args:
        fields: Options whose given values ``read`` gets as one dictionary.
        further: Parameters that ``read`` gets by name.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [p.replace(kind=_KEYWORD) for name, p in signature.parameters.items() if name != place]
    options = [field.parameter(*FURTHER_FLAGS.get(field.key, ())) for field in fields]
    asking = inspect.Parameter("context", _KEYWORD, annotation=typer.Context)

    def run(context: typer.Context, **values: Any) -> None:
        if context.invoked_subcommand is not None:
            return  # a group stays silent where one of its commands was named
        given = {}
        for field in fields:
            value = values.pop(field.name)
            source = context.get_parameter_source(field.name)
            if source is not None and source.name != "DEFAULT":
                given[field.key] = field.read(value)
        chosen = read(given, **{p.name: values.pop(p.name) for p in further})
        command(**{place: chosen}, **values)

    run.__name__ = command.__name__
    run.__doc__ = command.__doc__
    run.__annotations__ = {}
    run.__signature__ = inspect.Signature([asking, *own, *further, *options])  # type: ignore[attr-defined]
    return run
