"""Reading the registry of papers, and finding an entry in it."""

import difflib
from collections.abc import Collection
from functools import cache
from importlib.resources import files

import yaml

from ventris.papers.entry import Paper
from ventris.papers.reproduction_table import REPRODUCTIONS


class UnknownPaper(ValueError):
    """No paper has this slug; the message names the nearest ones."""

    def __init__(self, slug: str, known: Collection[str]) -> None:
        wanted = slug.lower()
        containing = sorted(name for name in known if wanted and wanted in name)
        near = (containing or difflib.get_close_matches(wanted, known, n=3, cutoff=0.6))[:3]
        hint = f"did you mean {' or '.join(near)}?" if near else "`ventris papers` lists them all"
        super().__init__(f"no paper is called {slug!r}; {hint}")


class InconsistentRegistry(ValueError):
    """The registry contradicts itself: a slug twice, or a state without (or against) a reproduction."""


def read_registry(text: str, registered: Collection[str]) -> dict[str, Paper]:
    """The entries in ``text`` (a YAML list), by slug in alphabetical order.

    ``registered`` holds the slugs that have a reproduction: exactly these entries must be in state "works".
    """
    entries: dict[str, Paper] = {}
    for data in yaml.safe_load(text):
        entry = Paper.model_validate(data)
        if entry.slug in entries:
            raise InconsistentRegistry(f"two papers are called {entry.slug!r}")
        entries[entry.slug] = entry
    works = {slug for slug, entry in entries.items() if entry.state == "works"}
    if unfounded := works - set(registered):
        raise InconsistentRegistry(
            f"said to work, but without a reproduction: {', '.join(sorted(unfounded))}"
        )
    if unsaid := set(registered) - works:
        raise InconsistentRegistry(f"a reproduction, but no entry that works: {', '.join(sorted(unsaid))}")
    return dict(sorted(entries.items()))


def registry_text() -> str:
    """The packaged registry, as YAML."""
    return files("ventris.papers").joinpath("registry.yaml").read_text(encoding="utf-8")


@cache
def _entries() -> dict[str, Paper]:
    return read_registry(registry_text(), REPRODUCTIONS)


def papers() -> dict[str, Paper]:
    """Every paper by slug, in alphabetical order. Read once; the dictionary is the caller's own."""
    return dict(_entries())


def paper(slug: str) -> Paper:
    """The paper called ``slug``. Raises :class:`UnknownPaper`, which names the nearest slugs."""
    entries = _entries()
    try:
        return entries[slug]
    except KeyError:
        raise UnknownPaper(slug, entries) from None
