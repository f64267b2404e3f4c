"""Results that may improve and never get worse, kept in files beside the tests.

``VENTRIS_UPDATE_RATCHET=1`` writes down what is found; the diff says what changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from ventris.bench.structured.mask import RANKS, MaskResult

BEST = RANKS[-1]


def hold(file: Path, results: Iterable[MaskResult]) -> None:
    """Compare with a file of ``below`` (what is less than enforced, by name) and ``exceptions``.

    Exceptions are the wrong results that are allowed, each with its cause in words. A wrong result that is
    not among them fails, and so does an exception that is wrong no more, so that the file stays true.
    """
    known = json.loads(file.read_text()) if file.exists() else {"below": {}, "exceptions": {}}
    found = {result.name: RANKS[result.rank] for result in results}
    exceptions = known["exceptions"]
    wrong = {name for name, reached in found.items() if reached in ("wrong", "stopped")}
    assert not (unknown := sorted(wrong - exceptions.keys())), f"wrong, and no known exception: {unknown}"
    assert not (cured := sorted(exceptions.keys() & found.keys() - wrong)), f"no exception any more: {cured}"
    below = {name: reached for name, reached in found.items() if reached != BEST and name not in wrong}
    if os.environ.get("VENTRIS_UPDATE_RATCHET"):
        text = json.dumps(
            {"below": below, "exceptions": exceptions}, indent=1, sort_keys=True, ensure_ascii=False
        )
        file.write_text(text + "\n")
        return
    worse = {
        name: f"{known['below'].get(name, BEST)} before, {reached} now"
        for name, reached in below.items()
        if RANKS.index(reached) < RANKS.index(known["below"].get(name, BEST))
    }
    assert not worse
