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


def departure(name: str, instance: str) -> str:
    """Why a result differs from the suite's on purpose; empty if it does not."""
    file = name.partition(": ")[0].partition("/")[2]
    return next((cause for prefix, cause in DEPARTURES if file.startswith(prefix)), "")


DEPARTURES = (("format.json", "formats are asserted, and the suite's default only notes them"),)
"""Files whose results differ by a documented choice."""
