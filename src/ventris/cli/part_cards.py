"""What a part says of itself: its summary, its guarantee and its options."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from ventris.cli.field_text import bounds_text, default_text, type_text
from ventris.engine.errors import BadInput
from ventris.parts import available, options_of, part_class


@dataclass(frozen=True, slots=True)
class PartCard:
    """One part.

    Attributes:
        exact: Whether a verifier keeps the target's distribution; ``None`` for the other kinds.
        options: Fields by name; ``None`` where they were not asked for.
    """

    kind: str
    name: str
    summary: str
    exact: bool | None
    options: dict[str, FieldInfo] | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        card: dict[str, Any] = {"kind": self.kind, "name": self.name, "summary": self.summary}
        if self.exact is not None:
            card["exact"] = self.exact
        card["options"] = [
            {
                "name": name,
                "type": type_text(field),
                "default": default_text(field),
                "bounds": bounds_text(field),
                "description": field.description or "",
            }
            for name, field in (self.options or {}).items()
        ]
        return card


def full_card(kind: str, name: str) -> PartCard:
    """Everything about a part, from its class.

    Raises:
        BadInput: if there is no such part or it does not import.
    """
    part = part_class(kind, name)
    exact = bool(part.exact) if kind == "verifier" else None
    return PartCard(kind, name, _first_line(part.__doc__), exact, dict(options_of(part).model_fields))


def brief_card(kind: str, name: str) -> PartCard:
    """Summary and guarantee of a part, read from its source: importing parts means importing torch.

    Raises:
        BadInput: if the part has to be imported after all, and does not import.
    """
    definition = _definition(available(kind)[name])
    summary = _first_line(ast.get_docstring(definition)) if definition else ""
    exact = _constant(definition.body, "exact") if definition and kind == "verifier" else None
    if not summary or (kind == "verifier" and exact is None):
        return full_card(kind, name)
    return PartCard(kind, name, summary, exact, None)


def _definition(location: str) -> ast.ClassDef | None:
    """The class in its source; ``None`` where the source is not to be found without importing."""
    module, _, attribute = location.partition(":")
    package, *inner = module.split(".")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent.joinpath(*inner).with_suffix(".py") if inner else Path(spec.origin)
    try:
        statements = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
    classes = (node for node in statements if isinstance(node, ast.ClassDef))
    return next((node for node in classes if node.name == attribute), None)


def _constant(body: Iterable[ast.stmt], name: str) -> bool | None:
    for statement in body:
        if (
            isinstance(statement, ast.Assign)
            and isinstance(statement.value, ast.Constant)
            and any(isinstance(target, ast.Name) and target.id == name for target in statement.targets)
        ):
            return bool(statement.value.value)
    return None


def _first_line(docstring: str | None) -> str:
    return inspect.cleandoc(docstring or "").partition("\n")[0].rstrip(".")


def kind_of(word: str, kinds: Iterable[str]) -> str | None:
    """The kind that a word means, in singular or plural."""
    plurals = {kind: f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s" for kind in kinds}
    return next((kind for kind, plural in plurals.items() if word.lower() in (kind, plural)), None)


def cards_named(name: str, kinds: Iterable[str]) -> list[PartCard]:
    """The parts of one name, whatever their kind.

    Raises:
        BadInput: if there is none.
    """
    found = [full_card(kind, name) for kind in kinds if name in available(kind)]
    if not found:
        raise BadInput(f"there is no kind and no part called {name!r}; kinds: {', '.join(kinds)}")
    return found
