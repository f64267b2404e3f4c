"""Schemas with instances that are known to be valid or not, and how some of many are chosen."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from ventris.engine.errors import BadInput

OWN = "own.jsonl"
"""The schemas that come with Ventris."""

COLLECTIONS = ("BFCL", "JME")
"""Collections of MaskBench whose names are not set off by dashes."""


class Instance(BaseModel):
    """A value and whether the schema allows it."""

    data: Any
    valid: bool
    description: str = ""


class Case(BaseModel):
    """A schema with its instances; one line of a file in MaskBench's form.

    Attributes:
        json_schema: Spelled ``schema`` in the file.
        group: Where it comes from, if its name does not say.
    """

    name: str
    group: str = ""
    json_schema: dict[str, Any] | bool = Field(alias="schema")
    tests: list[Instance] = Field(default_factory=list)

    @property
    def source(self) -> str:
        """Where the schema comes from: its group, else the beginning of its name."""
        if self.group:
            return self.group
        collection = next((known for known in COLLECTIONS if self.name.startswith(known)), None)
        return collection or (self.name.partition("---")[0] if "---" in self.name else "own")


def read_cases(data: str | Path | None = None) -> list[Case]:
    """The cases of a ``.jsonl`` or ``.jsonl.gz`` file; our own when none is given.

    Raises:
        BadInput: if the file cannot be read or holds something else; the line is named.
    """
    if data is None:
        text = (resources.files("ventris.bench.structured") / OWN).read_text(encoding="utf-8")
        name = OWN
    else:
        text, name = read_packed(Path(data).expanduser()), Path(data).name
    cases = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            cases.append(Case.model_validate(json.loads(line)))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise BadInput(f"line {number} of {name}: {place}: {first['msg'].lower()}") from None
        except (ValueError, RecursionError) as error:
            raise BadInput(f"line {number} of {name} is no JSON: {error}") from None
    if not cases:
        raise BadInput(f"{name} holds no schemas; write one JSON object with name, schema and tests a line")
    doubled = [case for case, count in Counter(case.name for case in cases).items() if count > 1]
    if doubled:
        raise BadInput(f"{name} has two schemas with the name {doubled[0]!r}")
    return cases


def read_packed(path: Path) -> str:
    """The text of a file, unpacked where its name ends in ``.gz``.

    Raises:
        BadInput: if it cannot be read.
    """
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"cannot read the data {path}: {reason}") from None


def stratified(cases: Sequence[Case], limit: int | None, seed: int) -> list[Case]:
    """At most ``limit`` cases: one of every source in turn, so that rare and hard sources count.

    Within a source the order is drawn by ``seed``. Without a limit, all cases as they are.
    """
    if limit is None or limit >= len(cases):
        return list(cases)
    piles: dict[str, list[Case]] = {}
    for case in cases:
        piles.setdefault(case.source, []).append(case)
    for source in sorted(piles):
        random.Random(f"{seed} {source}").shuffle(piles[source])
    chosen: list[Case] = []
    turn = 0
    while len(chosen) < limit:
        chosen += [piles[source][turn] for source in sorted(piles) if turn < len(piles[source])]
        turn += 1
    return chosen[:limit]
