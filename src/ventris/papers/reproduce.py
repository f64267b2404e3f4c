"""From a paper's slug to the function that reproduces its central claim here."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ventris.papers.entry import Paper
from ventris.papers.registry import paper
from ventris.papers.reproduction import Reproduction
from ventris.papers.reproduction_table import REPRODUCTIONS


class NotYetBuilt(RuntimeError):
    """The paper is planned: there is nothing to run yet."""

    def __init__(self, entry: Paper) -> None:
        super().__init__(f"{entry.slug} is planned, not built yet; it waits for {', '.join(entry.parts)}")


def reproduce(slug: str, **options: Any) -> Reproduction:
    """Run the reproduction of the paper called ``slug``.

    Raises :class:`~ventris.papers.registry.UnknownPaper` or, for a planned paper, :class:`NotYetBuilt`.
    """
    entry = paper(slug)
    if entry.state == "planned":
        raise NotYetBuilt(entry)
    result = _function(REPRODUCTIONS[slug])(**options)
    if not isinstance(result, Reproduction) or result.slug != slug:
        raise TypeError(f"{REPRODUCTIONS[slug]} did not return a Reproduction of {slug}")
    return result


def _function(path: str) -> Callable[..., Any]:
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise ValueError(f"a reproduction is registered as 'module:function', not {path!r}")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
