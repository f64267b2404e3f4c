"""Other toolkits as rows of the same table: same prompts, same limits, same clock, same process.

A peer is asked for by name, with options as for parts: ``llama.cpp-prompt-lookup:tokens=5``. One that is not
installed, or cannot run this model, stays in the table with the reason.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ventris.bench.contestant import Contestant
from ventris.bench.peers.base import PeerContext, PeerMissing
from ventris.bench.record import Entrant
from ventris.engine.errors import BadInput
from ventris.parts import PartSpec, parse, read_options

PEERS = {
    "transformers": "ventris.bench.peers.transformers:Plain",
    "transformers-prompt-lookup": "ventris.bench.peers.transformers:PromptLookup",
    "transformers-assisted": "ventris.bench.peers.transformers:Assisted",
    "llama.cpp": "ventris.bench.peers.llama_cpp:Plain",
    "llama.cpp-prompt-lookup": "ventris.bench.peers.llama_cpp:PromptLookup",
}
"""Name to ``module:Class``; these modules import their toolkit only when a peer is opened."""


def parse_peers(specs: list[str]) -> list[PartSpec]:
    """Read the names of peers, with their options.

    Raises:
        BadInput: for a name that is none.
    """
    found = [spec for text in specs for spec in parse(text)]
    for spec in found:
        if spec.name not in PEERS:
            raise BadInput(f"there is no peer {spec.name!r}; there are: {', '.join(PEERS)}")
    names = [spec.name for spec in found]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"the peer {name!r} is named twice")
    return found


def open_peers(specs: list[PartSpec], context: PeerContext) -> tuple[list[Contestant], list[Entrant]]:
    """Load the peers that can run here; the entrants name the others too, with the reason.

    Raises:
        BadInput: for an unknown option.
    """
    contestants: list[Contestant] = []
    entrants = []
    for spec in specs:
        peer = _peer_class(spec.name)
        options = read_options("peer", peer, spec)
        plain: str = peer.plain
        try:
            opened = peer(context, **options.model_dump())
        except PeerMissing as reason:
            entrants.append(Entrant(name=spec.name, kind="peer", plain=plain, missing=str(reason)))
            continue
        contestants.append(opened)
        settings = options.model_dump()
        entrants.append(
            Entrant(name=spec.name, kind="peer", plain=plain, spec=settings, statement=opened.statement)
        )
    return contestants, entrants


def _peer_class(name: str) -> type[Any]:
    module, _, attribute = PEERS[name].partition(":")
    found: type[Any] = getattr(import_module(module), attribute)
    return found
