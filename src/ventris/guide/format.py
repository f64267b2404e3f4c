"""``format``: the answer fills the holes of a template."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Unpack

from pydantic import BaseModel, Field

from ventris.engine.errors import BadInput
from ventris.guide.hard import HardGuide, HardSettings, with_hard_options
from ventris.guide.regex import escape

KINDS = {
    "str": r"[^\n]+",
    "word": r"[^\s]+",
    "text": r"(?s:.+)",
    "int": r"-?(0|[1-9][0-9]*)",
    "float": r"-?(0|[1-9][0-9]*)(\.[0-9]+)?",
    "bool": r"(true|false)",
    "date": r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
}
OPEN_ENDED = ("str", "word", "text")
"""Kinds that could run over the text behind their hole, and so end before its first occurrence."""

_HOLE = re.compile(r"\{\{|\}\}|\{([A-Za-z_]\w*)(?::([^{}]*))?\}|[{}]")


@dataclass(frozen=True, slots=True)
class _Hole:
    name: str
    kind: str

    def pattern(self) -> str:
        known = KINDS.get(self.kind)
        return known if known else "(" + "|".join(map(escape, self.kind.split("|"))) + ")"


class Format(HardGuide):
    """Allows the texts that a template gives when its holes are filled.

    A hole is ``{name:kind}`` with the kind ``str`` (rest of a line), ``word``, ``text``, ``int``, ``float``,
    ``bool``, ``date``, or a list of choices, ``{size:small|large}``; without a kind it is ``str``. ``str``,
    ``word`` and ``text`` hold anything but the text that follows their hole. Braces are written twice.

    Args:
        template: For example ``"Name: {name:str} age {age:int}"``.
    """

    name = "format"

    @with_hard_options
    class Options(BaseModel):
        template: str = Field(description="text with holes, such as 'Age: {age:int}'")

    def __init__(self, template: str, **settings: Unpack[HardSettings]) -> None:
        super().__init__(**settings)
        self.limits.check_text(template, "template")
        self.template = template
        self.parts = _parse(template)

    def grammar(self) -> str:
        """One terminal, so that no hole swallows what stands behind it."""
        lines, sequence = [], []
        for place, part in enumerate(self.parts):
            if isinstance(part, str):
                sequence.append(f"/{_quoted(part)}/")
                continue
            behind = self.parts[place + 1] if place + 1 < len(self.parts) else ""
            rule = f"/{part.pattern()}/"
            if part.kind in OPEN_ENDED and isinstance(behind, str) and behind:
                rule += f" & ~/(?s:.*){_quoted(behind)}(?s:.*)/"
            lines.append(f"HOLE{place}: {rule}")
            sequence.append(f"HOLE{place}")
        return "start: TEXT\nTEXT: " + " ".join(sequence) + "\n" + "\n".join(lines) + "\n"

    def read(self, text: str) -> dict[str, str]:
        """What stands in the holes of a finished text.

        Raises:
            BadInput: if the text does not follow the template.
        """
        pattern = "".join(
            re.escape(part) if isinstance(part, str) else f"(?P<{part.name}>{_lazy(part.pattern())})"
            for part in self.parts
        )
        found = re.fullmatch(pattern, text)
        if found is None:
            raise BadInput(f"the text does not follow the template {self.template!r}")
        return found.groupdict()


def _parse(template: str) -> list[str | _Hole]:
    parts: list[str | _Hole] = []
    literal, last, names = "", 0, set()
    for match in _HOLE.finditer(template):
        literal += template[last : match.start()]
        last = match.end()
        if match[0] in ("{{", "}}"):
            literal += match[0][0]
            continue
        if match[1] is None:
            raise BadInput(
                f"the template has a single {match[0]!r}; write it twice, or a hole as {{name:kind}}"
            )
        hole = _Hole(match[1], match[2] or "str")
        if hole.name in names:
            raise BadInput(f"the template has two holes named {hole.name!r}")
        if hole.kind not in KINDS and "|" not in hole.kind:
            known = ", ".join(KINDS)
            raise BadInput(f"hole {hole.name!r} is of kind {hole.kind!r}; there are: {known}, or a|b|c")
        names.add(hole.name)
        parts += [literal, hole] if literal else [hole]
        literal = ""
    literal += template[last:]
    parts += [literal] if literal else []
    if not names:
        raise BadInput("the template has no hole; write one as {name:kind}")
    return parts


def _lazy(pattern: str) -> str:
    return pattern + "?" if pattern.endswith("+") else pattern.replace(".+)", ".+?)")


def _quoted(text: str) -> str:
    """A text as a regular expression between slashes."""
    return escape(text).replace("\n", r"\n").replace("\r", r"\r")
