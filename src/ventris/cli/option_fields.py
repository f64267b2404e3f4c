"""Fields of pydantic models as options of a command: names, bounds, defaults and help, declared once."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ventris.cli.field_text import bounds_text
from ventris.engine.errors import BadInput

METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT", bool: ""}


@dataclass(frozen=True, slots=True)
class OptionField:
    """One field as a command-line option.

    Attributes:
        key: The field's name, which is also its key in a YAML file.
        name: The option's name; singular where the option is given once for each of several values.
        kind: Type of one value.
        many: May be repeated.
        mapping: Each value is written ``KEY=VALUE``.
        field: Where description, default and bounds come from.
        panel: Under which heading the help lists it.
    """

    key: str
    name: str
    kind: type
    many: bool
    mapping: bool
    field: FieldInfo
    panel: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def help(self) -> str:
        """Description, bounds, and whether it may be repeated."""
        notes = (self.field.description or "", bounds_text(self.field), "repeatable" if self.many else "")
        return "; ".join(filter(None, notes))

    def parameter(self, *further_flags: str) -> inspect.Parameter:
        """The option as a parameter that typer understands.

        Bounds are not typer's business: the model checks them, for files and for Python just the same.
        """
        option = typer.Option(
            self.flag,
            *further_flags,
            help=self.help,
            metavar="ID=X" if self.mapping else METAVARS.get(self.kind),
            rich_help_panel=self.panel,
        )
        default = None if self.field.is_required() else self.field.get_default(call_default_factory=True)
        if self.many:
            default = list(default or ()) or None
        kind: Any = types.GenericAlias(list, (self.kind,)) if self.many else self.kind
        kind = kind if default is not None else kind | None
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
        )

    def read(self, value: Any) -> Any:
        """The setting's value from what the command line gave."""
        return dict(self._pair(item) for item in value) if self.mapping else value

    def _pair(self, item: str) -> tuple[str, str]:
        key, equals, value = item.partition("=")
        if not equals:
            raise BadInput(f"{self.flag} is {item!r}; write ID=X, such as {self.flag} 42=-1.5")
        return key.strip(), value.strip()


def option_fields(model: type[BaseModel], panels: Callable[[str], str]) -> Iterator[OptionField]:
    """The fields of a model as options.

    A list, and a part kind with a plural name, becomes an option that may be repeated; a plural ``s`` falls.
    """
    for key, field in model.model_fields.items():
        kind, many, mapping = _read_annotation(key, field.annotation)
        name = _singular(key) if many and not mapping else key
        yield OptionField(key, name, kind, many, mapping, field, panels(key))


def _read_annotation(key: str, annotation: Any) -> tuple[type, bool, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(member for member in get_args(annotation) if member is not type(None))
    if get_origin(annotation) is list:
        member = get_args(annotation)[0]
        return (member if isinstance(member, type) else str), True, False
    if get_origin(annotation) is dict:
        return str, True, True
    if annotation is Any:
        return str, key.endswith("s"), False  # `guides` holds several, `draft` is one specification
    return (annotation if isinstance(annotation, type) else str), False, False


def _singular(word: str) -> str:
    return f"{word[:-3]}y" if word.endswith("ies") else word.removesuffix("s")
