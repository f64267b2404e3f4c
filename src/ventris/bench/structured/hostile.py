"""Schemas, regexes and grammars as somebody writes them who means harm, made from a seed.

Every one must end in an answer or in one line of refusal, within its limits. The texts are made where they
are tried, so that ten thousand of them need no memory here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel

from ventris.bench.structured.mask import read_tokenizer
from ventris.engine.errors import VentrisError
from ventris.guide import Grammar, GuideStopped, JsonSchema, Limits, Regex
from ventris.guide.vocabulary import ByteTokenizer, vocabulary_of

LIMITS = Limits(compile_seconds=2.0, compile_bytes=500_000_000)
TOKENS = 12
"""Tokens that are drawn from the masks of a guide that was accepted."""

SYMBOLS = "ab(){}[]|*+?^$\\.,019-&~:=\"'/<>#@!é\n\0\u2028"
KEYWORDS = (
    *(
        "type",
        "enum",
        "const",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "multipleOf",
        "minLength",
        "maxLength",
    ),
    *("pattern", "format", "items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
    *(
        "properties",
        "patternProperties",
        "additionalProperties",
        "required",
        "propertyNames",
        "minProperties",
    ),
    *("dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems"),
    *("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "$ref", "$defs", "$id", "$dynamicRef"),
)
PATTERNS = ("^a", "(a+)+$", "^(a|a)*b", "(?=x)", "[", "a{1000}", r"\p{L}+", "^.{0,500}$", "", r"(\d+\.)*")
REFERENCES = (
    "#",
    "#/$defs/a",
    "#/$defs/b",
    "#/nowhere",
    "http://192.0.2.1/x",
    "file:///etc/passwd",
    "#a",
    "%",
)
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3,
    10**40,
    1e308,
    -0.0,
    "",
    "x" * 300,
    [],
    {},
    [[]],
    {"a": 1},
    "\u0000",
    "object",
    "date",
)

Kind = Literal["schema", "regex", "grammar"]
Ending = Literal["accepted", "refused", "guide stopped", "timeout", "memory", "crash", "error"]


@dataclass(frozen=True, slots=True)
class Hostile:
    """One input, to be made from its name and seed."""

    name: str
    kind: Kind
    seed: int

    def text(self) -> str:
        """The input itself."""
        return _MAKERS[self.kind](random.Random(f"{self.seed} {self.name}"))


class Outcome(BaseModel):
    """What became of one input.

    Attributes:
        ending: ``accepted``, ``refused`` (in one line) or ``guide stopped`` (by a limit, while decoding) are
            as it should be; ``timeout``, ``memory``, ``crash`` and ``error`` are not.
    """

    name: str
    kind: Kind
    ending: Ending
    detail: str = ""
    seconds: float = 0.0

    @property
    def bad(self) -> bool:
        return self.ending in ("timeout", "memory", "crash", "error")


def hostile_inputs(count: int, seed: int) -> list[Hostile]:
    """``count`` inputs: of five, two are schemas, two regexes and one a grammar."""
    kinds: tuple[Kind, ...] = ("schema", "regex", "schema", "regex", "grammar")
    return [Hostile(f"{kinds[i % 5]} {i}", kinds[i % 5], seed) for i in range(count)]


def prepare_hostile(model: str) -> Callable[[Hostile], Outcome]:
    """For a worker process."""
    tokenizer = read_tokenizer(model)
    vocabulary_of(tokenizer)
    return lambda made: try_hostile(made, tokenizer)


def try_hostile(made: Hostile, tokenizer: ByteTokenizer) -> Outcome:
    """Compile one input, and if it is accepted walk a few random tokens through its masks."""
    text = made.text()
    outcome = Outcome(name=made.name, kind=made.kind, ending="accepted")
    started = perf_counter()
    try:
        _walk(_guide(made.kind, text).bind(tokenizer), tokenizer, random.Random(made.name))
    except GuideStopped as error:
        outcome.ending, outcome.detail = "guide stopped", str(error)
    except VentrisError as error:
        outcome.ending, outcome.detail = "refused", str(error)
    outcome.seconds = perf_counter() - started
    if "\n" in outcome.detail:
        outcome.ending = "error"
        outcome.detail = f"a message of several lines: {outcome.detail[:200]}"
    return outcome


def _guide(kind: Kind, text: str) -> Any:
    if kind == "schema":
        return JsonSchema(text, limits=LIMITS)
    return (Regex if kind == "regex" else Grammar)(text, limits=LIMITS)


def _walk(guide: Any, tokenizer: ByteTokenizer, draw: random.Random) -> None:
    request: Any = SimpleNamespace(end_ids=frozenset(tokenizer.eos_ids))
    state = guide.start(request)
    row = torch.zeros(tokenizer.vocab_size)
    numbers = row.numpy()
    for _ in range(TOKENS):
        numbers.fill(0)
        state.adjust(row, None)
        allowed = np.flatnonzero(numbers == 0)
        if not len(allowed):
            raise GuideStopped("no token is allowed")
        token = int(draw.choice(allowed))
        if token in tokenizer.eos_ids:
            return
        state.advance(token)


def _schema(draw: random.Random) -> str:
    shape = draw.randrange(8)
    if shape == 0:
        return _noise(draw, '{}[]",:01tfn$ref\\u')
    if shape == 1:
        levels = draw.choice((10, 90, 200, 3000))
        return '{"items":' * levels + "{}" + "}" * levels
    if shape == 2:
        names = [f"k{i}" for i in range(draw.choice((3, 30, 300)))]
        some = [{"required": draw.sample(names, min(len(names), 3))} for _ in range(draw.choice((2, 12, 40)))]
        return json.dumps(
            {draw.choice(("oneOf", "anyOf", "allOf")): some, "properties": {name: {} for name in names}}
        )
    if shape == 3:
        choices = [
            {"anyOf": [{"properties": {f"k{i}{j}": {"type": "string"}}} for j in range(4)]}
            for i in range(draw.randrange(2, 14))
        ]
        return json.dumps({"allOf": choices})
    if shape == 4:
        divisors = draw.sample((2, 3, 7, 11, 13, 17, 19, 23, 29, 0.1, 0.01, 1_000_003), draw.randrange(1, 8))
        return json.dumps({"allOf": [{"type": "number", "multipleOf": divisor} for divisor in divisors]})
    if shape == 5:
        count = draw.choice((50, 1000, 20_000))
        return json.dumps({"enum": [f"{draw.random()}" * draw.choice((1, 20)) for _ in range(count)]})
    return json.dumps(_subschema(draw, draw.choice((2, 3, 4))))


def _subschema(draw: random.Random, depth: int) -> Any:
    """Keywords with values that are sometimes of the right kind."""
    if depth == 0 or draw.random() < 0.05:
        return draw.choice((True, False, {}, {"type": "string"}, {"$ref": "#"}, *ODD[:4]))
    schema: dict[str, Any] = {}
    for keyword in draw.sample(KEYWORDS, draw.randrange(1, 6)):
        if draw.random() < 0.06:
            schema[keyword] = draw.choice(ODD)
        elif keyword in ("allOf", "anyOf", "oneOf", "prefixItems"):
            schema[keyword] = [_subschema(draw, depth - 1) for _ in range(draw.randrange(0, 4))]
        elif keyword in ("properties", "patternProperties", "dependentSchemas", "$defs"):
            names = PATTERNS if keyword == "patternProperties" else ("a", "b", "c", "", "é")
            schema[keyword] = {
                draw.choice(names): _subschema(draw, depth - 1) for _ in range(draw.randrange(1, 4))
            }
        elif keyword in ("type", "format"):
            known = (
                "string",
                "integer",
                "object",
                "array",
                "null",
                "date",
                "ipv6",
                "uuid",
                "regex",
                "iri",
                "x",
            )
            schema[keyword] = draw.choice(known)
        elif keyword in ("enum", "required"):
            schema[keyword] = draw.sample(ODD, 3) if keyword == "enum" else draw.sample("abc", 2)
        elif keyword in ("$ref", "$dynamicRef", "$id"):
            schema[keyword] = draw.choice(REFERENCES)
        elif keyword == "pattern":
            schema[keyword] = draw.choice(PATTERNS)
        elif keyword == "const":
            schema[keyword] = draw.choice(ODD)
        elif keyword == "dependentRequired":
            schema[keyword] = {"a": ["b"]}
        elif keyword.startswith(("min", "max", "multiple", "exclusive")):
            schema[keyword] = draw.choice((0, 1, 2, 5, 0.5, 100, 10**6, -3))
        elif keyword == "uniqueItems":
            schema[keyword] = draw.random() < 0.5
        else:
            schema[keyword] = _subschema(draw, depth - 1)
    return schema


def _regex(draw: random.Random) -> str:
    shape = draw.randrange(6)
    if shape == 0:
        return _noise(draw, SYMBOLS)
    if shape == 1:
        text = draw.choice(("a", ".", "[ab]", r"\w"))
        for _ in range(draw.randrange(1, 7)):
            low, high = sorted((draw.choice((0, 1, 9)), draw.choice((1, 20, 999, 5000))))
            text = f"({text}){{{low},{high}}}"
        return text
    if shape == 2:
        parts = [f"{draw.choice('abc')}.{{{draw.choice((2, 8, 30))}}}{draw.choice('xyz')}" for _ in range(4)]
        return f".*({'|'.join(parts)}).*"
    if shape == 3:
        return "|".join(f"w{draw.randrange(10**6)}x" for _ in range(draw.choice((10, 1000, 20_000))))
    if shape == 4:
        return "(" * draw.choice((20, 99, 101, 3000)) + "a" + ")" * draw.choice((20, 99, 101, 3000))
    pieces = (
        "a",
        "[^a-z]",
        r"\d+",
        "(x|y)*",
        r"\b",
        "(?i:q)",
        "(?=z)",
        r"\p{Lu}",
        "é{3}",
        ".*",
        "$",
        "^",
        "a??",
        "&",
        "~(b)",
    )
    return "".join(draw.choice(pieces) for _ in range(draw.randrange(1, 15)))


def _grammar(draw: random.Random) -> str:
    if draw.random() < 0.25:
        return _noise(draw, SYMBOLS + "start: root ::= |")
    names = ["start", "b", "c", "d"][: draw.randrange(1, 5)]
    atoms = (*names, '"x"', '"y"', '""', "/[a-z]+/", "/.*/", "/(a|b)*c/", '("x" | "y")~0..40')
    lines = []
    for name in names:
        ways = [
            " ".join(draw.choice(atoms) for _ in range(draw.randrange(1, 6)))
            for _ in range(draw.randrange(1, 4))
        ]
        lines.append(f"{name}: {' | '.join(ways)}")
    return "\n".join(lines)


def _noise(draw: random.Random, letters: str) -> str:
    return "".join(draw.choice(letters) for _ in range(draw.choice((3, 20, 60, 400))))


_MAKERS: dict[str, Callable[[random.Random], str]] = {"schema": _schema, "regex": _regex, "grammar": _grammar}
