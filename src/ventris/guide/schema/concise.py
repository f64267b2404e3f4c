"""``name, age int, tags [str]``: a JSON schema in the words one would use to describe it.

::

    schema      := fields | type
    fields      := field ("," field)*
    field       := NAME ["?"] [type]               without a type it is a string; "?": may be missing
    type        := alternative ("|" alternative)*
    alternative := KIND | "[" type "]" | "{" fields "}" | WORD | QUOTED | NUMBER

``KIND`` is one of :data:`KINDS`; any other word beside alternatives is itself, so ``S|M|L`` is one of three
texts. Alone it would more likely be a slip of the pen, and is refused. Quotes make a word of anything:
``"int"``, ``"New York"``. As the whole schema, a type stands in brackets or braces:
``[{name, age int}]`` is a list of objects.
"""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from typing import Any

from ventris.engine.errors import BadInput

KINDS: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "null": {"type": "null"},
    "any": {},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "datetime": {"type": "string", "format": "date-time"},
    "email": {"type": "string", "format": "email"},
    "uri": {"type": "string", "format": "uri"},
    "uuid": {"type": "string", "format": "uuid"},
}

DEEPEST = 50
"""Nesting of brackets; JSON schemas have a limit of their own, and recursion must end before Python's."""

_TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|(-?[0-9]+(?:\.[0-9]+)?)(?![\w-])|([\w$-]+)|([][{},|?]))')


def concise_schema(text: str) -> dict[str, Any]:
    """The JSON schema that a concise description stands for; objects allow no other properties.

    Raises:
        BadInput: naming the place where the description cannot be read.
    """
    reader = _Reader(text)
    if reader.next in ("[", "{"):
        schema = reader.type(0)
        if reader.next:
            raise reader.unexpected("the end")
        return schema
    return reader.fields("", 0)


class _Reader:
    """Reads by descent, one token ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.tokens = self._split()
        self.index = 0

    def _split(self) -> list[tuple[int, str]]:
        tokens, place, end = [], 0, len(self.text.rstrip())
        while place < end:
            found = _TOKEN.match(self.text, place)
            if found is None:
                self.place = place
                raise BadInput(f"cannot read {self.text[place:].strip()[:20]!r} in the schema {self.text!r}")
            tokens.append((found.end() - len(found[0].lstrip()), found[0].strip()))
            place = found.end()
        return tokens

    @property
    def next(self) -> str:
        """The next token; empty at the end."""
        return self.tokens[self.index][1] if self.index < len(self.tokens) else ""

    def take(self) -> str:
        self.index += 1
        return self.tokens[self.index - 1][1]

    def expect(self, token: str) -> None:
        if self.next != token:
            raise self.unexpected(repr(token) if token else "the end")
        if token:
            self.take()

    def unexpected(self, wanted: str) -> BadInput:
        found = f"{self.next!r} at character {self.tokens[self.index][0] + 1}" if self.next else "its end"
        return BadInput(f"the schema {self.text!r} has {found} where {wanted} should be")

    def fields(self, closing: str, depth: int) -> dict[str, Any]:
        """Fields up to ``closing``, which is taken."""
        properties: dict[str, Any] = {}
        required = []
        while True:
            if not re.fullmatch(r"[\w$-]+|\".*\"", self.next, re.DOTALL):
                raise self.unexpected("a field name")
            name = self.take()
            name = json.loads(name) if name[0] == '"' else name
            if name in properties:
                raise BadInput(f"the schema {self.text!r} has two fields named {name!r}")
            if self.next == "?":
                self.take()
            else:
                required.append(name)
            properties[name] = KINDS["str"] if self.next in (",", closing) else self.type(depth)
            if self.next != ",":
                break
            self.take()
        self.expect(closing)
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    def type(self, depth: int) -> dict[str, Any]:
        """Alternatives: kinds beside each other, and one ``enum`` of all the words."""
        if depth >= DEEPEST:
            raise BadInput(f"the schema nests deeper than {DEEPEST} brackets; write a JSON schema")
        choices: list[dict[str, Any]] = []
        words: list[Any] = []
        first = self.index
        while True:
            self._alternative(choices, words, depth)
            if self.next != "|":
                break
            self.take()
        if (
            words
            and self.index == first + 1
            and isinstance(words[0], str)
            and self.tokens[first][1][0] != '"'
        ):
            raise self._no_kind(words[0])
        if words:
            choices.append({"enum": list(dict.fromkeys(words))})
        return choices[0] if len(choices) == 1 else {"anyOf": choices}

    def _no_kind(self, word: str) -> BadInput:
        near = get_close_matches(word, KINDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(KINDS)}."
        return BadInput(
            f"the schema {self.text!r} has {word!r}, which is no kind of value; {hint} "
            "A constant stands in quotes"
        )

    def _alternative(self, choices: list[dict[str, Any]], words: list[Any], depth: int) -> None:
        if self.next == "[":
            self.take()
            choices.append({"type": "array", "items": self.type(depth + 1)})
            self.expect("]")
        elif self.next == "{":
            self.take()
            choices.append(self.fields("}", depth + 1))
        elif self.next in KINDS:
            choices.append(KINDS[self.take()])
        elif self.next and self.next not in "]},|?":
            word = self.take()
            words.append(json.loads(word) if word[0] == '"' or _is_number(word) else word)
        else:
            raise self.unexpected("a type")


def _is_number(word: str) -> bool:
    return re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", word) is not None
