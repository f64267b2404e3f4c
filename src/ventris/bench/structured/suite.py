"""The official JSON Schema Test Suite by force-feeding: can the guide write what is valid, and nothing else?

Source: Geng et al. 2025, section on the test suite; a group of tests is a schema with its instances.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ventris.bench.structured.cases import Case, read_packed
from ventris.engine.errors import BadInput

DIALECTS = {
    "draft4": "http://json-schema.org/draft-04/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}


def read_suite(data: str | None) -> list[Case]:
    """All groups of all drafts.

    Args:
        data: The suite's checkout, its folder ``tests``, or a folder with one ``draftN.json.gz`` a draft that
            maps file names to groups.

    Raises:
        BadInput: if there are no tests there.
    """
    if data is None:
        raise BadInput("the suite protocol needs --data with the folder of the JSON Schema Test Suite")
    folder = Path(data).expanduser()
    if (folder / "tests").is_dir():
        folder = folder / "tests"
    taken: Counter[str] = Counter()
    cases = []
    for draft, dialect in DIALECTS.items():
        for file, groups in _files(folder, draft):
            for group in groups:
                name = f"{draft}/{file}: {group['description']}"
                taken[name] += 1
                numbered = name if taken[name] == 1 else f"{name} ({taken[name]})"
                cases.append(_case(numbered, f"{draft}/{file}", group, dialect))
    if not cases:
        raise BadInput(f"there are no tests of the JSON Schema Test Suite in {data}")
    return cases


def _files(folder: Path, draft: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    packed = next((p for p in (folder / f"{draft}.json.gz", folder / f"{draft}.json") if p.is_file()), None)
    try:
        if packed is not None:
            yield from json.loads(read_packed(packed)).items()
            return
        for path in sorted((folder / draft).rglob("*.json")):
            yield path.relative_to(folder / draft).as_posix(), json.loads(read_packed(path))
    except (ValueError, AttributeError) as error:
        raise BadInput(f"{folder} holds something that is no test suite: {error}") from None


def _case(name: str, group: str, entry: dict[str, Any], dialect: str) -> Case:
    schema = entry["schema"]
    if isinstance(schema, dict) and "$schema" not in schema:
        # The files of older drafts leave their dialect to the runner.
        schema = {"$schema": dialect, **schema}
    try:
        return Case.model_validate({"name": name, "group": group, "schema": schema, "tests": entry["tests"]})
    except ValidationError as error:
        raise BadInput(f"{name} is no group of tests: {error.errors()[0]['msg'].lower()}") from None


def known_cause(name: str, what: str, instance: str) -> str:
    """Why a verdict differs from the suite's, where that is known; else empty.

    Args:
        name: Of the group, as :func:`read_suite` gives it.
        what: ``valid_rejected`` or ``let_through``.
        instance: Its description, and the text up to the token that was masked.
    """
    file = name.partition(": ")[0].partition("/")[2]
    for place, kind, part, cause in KNOWN_CAUSES:
        if file == place and what == kind and part in instance:
            return cause
    return ""


_REJECTED, _THROUGH = "valid_rejected", "let_through"
_WHOLE = "a number is written in one way: the one of the schema, and integers without a point"
_PYTHON = "the check takes Python's regular expressions, which differ from ECMA 262"
_SPACES = "\\s and \\S take U+FEFF for a letter"
_LEAP = "leap seconds are written in UTC only"
_CONTENT = "contentEncoding and contentMediaType only describe a text"

KNOWN_CAUSES = (
    ("const.json", _REJECTED, "float", _WHOLE),
    ("enum.json", _REJECTED, "is valid: ", _WHOLE),
    ("type.json", _REJECTED, "a float with zero fractional part", _WHOLE),
    (
        "format.json",
        _REJECTED,
        "only an annotation",
        "formats are asserted; the suite's default only notes them",
    ),
    ("vocabulary.json", _REJECTED, "", "meta-schemas without the validation vocabulary are not told apart"),
    (
        "optional/float-overflow.json",
        _REJECTED,
        "",
        "numbers are written without an exponent where multipleOf is asked",
    ),
    ("optional/content.json", _THROUGH, "", _CONTENT),
    ("optional/ecmascript-regex.json", _REJECTED, "zero-width whitespace", _SPACES),
    ("optional/ecmascript-regex.json", _THROUGH, "zero-width whitespace", _SPACES),
    ("optional/format/ecmascript-regex.json", _REJECTED, "", _PYTHON),
    ("optional/format/ecmascript-regex.json", _THROUGH, "", _PYTHON),
    ("optional/format/date-time.json", _REJECTED, "leap second", _LEAP),
    ("optional/format/time.json", _REJECTED, "leap second", _LEAP),
    ("optional/format/email.json", _REJECTED, "", "quoted names and IPv6 hosts are not written"),
    ("optional/format/hostname.json", _THROUGH, "xn--", "labels in Punycode are not decoded"),
    ("optional/format/hostname.json", _THROUGH, "XN--", "labels in Punycode are not decoded"),
    (
        "optional/format/hostname.json",
        _THROUGH,
        "overall length",
        "the length of all labels together is not counted",
    ),
    ("optional/format/ipv6.json", _REJECTED, "", "the form with an IPv4 tail is not written"),
    (
        "optional/format/uri-reference.json",
        _THROUGH,
        "IPv6 literal",
        "IPv6 literals are checked by their letters only",
    ),
)
"""File, what, a part of the instance's description, and the cause."""
