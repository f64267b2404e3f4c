"""Every drafter with every verifier, guide, temperature and batch size: what holds, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from ventris.draft import Chimera, DraftModel, Eagle, Falcon, Hydra, Kangaroo, LongSpec, Medusa, NGram, Stack
from ventris.draft.chimera_network import ChimeraNetwork
from ventris.draft.eagle_network import EagleNetwork
from ventris.draft.falcon_network import FalconNetwork
from ventris.draft.head_tree import grow_from_accuracies
from ventris.draft.hydra_heads import HydraHeads
from ventris.draft.kangaroo import KangarooNetwork
from ventris.draft.longspec_network import LongSpecNetwork
from ventris.draft.medusa_heads import MedusaHeads
from ventris.draft.prefix_attention import PrefixSizes
from ventris.engine.errors import Incompatible
from ventris.engine.target import Scores
from ventris.testing.checks import run
from ventris.testing.guides import Amateur, HiddenShift, NoRepeatedPairs
from ventris.testing.toy import ToyTarget
from ventris.testing.vocabularies import translating_drafter
from ventris.verify import (
    Block,
    Coupled,
    Greedy,
    Judge,
    PointMass,
    Rejection,
    SpecTr,
    Synthetic,
    ThresholdRollback,
    TranslatedRejection,
    Typical,
)

TARGET = ToyTarget(vocab_size=12, memory=2, sharpness=5.0)
DRAFT = ToyTarget(vocab_size=12, memory=2, sharpness=5.0, blend=(9, 0.4))

TOY_LAYER: dict[str, Any] = {
    "hidden": 1,
    "intermediate": 2,
    "heads": 1,
    "kv_heads": 1,
    "head_dim": 2,
    "context_length": 4096,
    "rope_theta": 10_000.0,
    "norm_eps": 1e-5,
}
"""Sizes of a drafter's layer beside the toy target, whose rows are one number wide."""

STATIC = grow_from_accuracies([[0.5, 0.3], [0.5, 0.3]], 6)


def random_eagle(**settings: Any) -> Eagle:
    """An EAGLE-3 layer with random weights for the toy target."""
    network = EagleNetwork(TOY_LAYER, (0, 0, 1), TARGET.vocab_size)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        network.ids.copy_(torch.arange(TARGET.vocab_size))
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return Eagle(TARGET, network, **settings)


def randomly(network: Any) -> Any:
    """The network with random weights."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        network.vocabulary.ids.copy_(torch.arange(TARGET.vocab_size))
        network.vocabulary.rows.copy_(torch.randn((TARGET.vocab_size, 1), generator=generator))
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network


def random_medusa(**settings: Any) -> Medusa:
    """Medusa heads for the toy target."""
    network = MedusaHeads(heads=2, hidden=1, shortlist=TARGET.vocab_size, rows="stored")
    return Medusa(TARGET, randomly(network), STATIC, **settings)


def random_hydra(prefix: bool, **settings: Any) -> Hydra:
    """Hydra heads, with prefix attention or without."""
    layer = TOY_LAYER if prefix else None
    network = HydraHeads(
        heads=2, hidden=1, shortlist=TARGET.vocab_size, rows="stored", layers=2, prefix=layer
    )
    return Hydra(TARGET, randomly(network), STATIC, **settings)


def random_kangaroo(**settings: Any) -> Kangaroo:
    """An adapter behind the toy's only layer."""
    config = PrefixSizes(**TOY_LAYER).decoder()
    network = KangarooNetwork(config, 1, TARGET.vocab_size, "stored")
    return Kangaroo(TARGET, randomly(network), confidence=0.0, **settings)


def random_falcon(**settings: Any) -> Falcon:
    """Falcon's layer beside the toy, two tokens a pass and two passes."""
    network = randomly(FalconNetwork(TOY_LAYER, 2, TARGET.vocab_size, "stored"))
    return Falcon(TARGET, network, grow_from_accuracies([[0.5, 0.3]] * 4, 6), **settings)


def random_chimera(**settings: Any) -> Chimera:
    """Chimera's layer beside the toy, with two heads."""
    return Chimera(
        TARGET, randomly(ChimeraNetwork(2, TOY_LAYER, TARGET.vocab_size, "stored")), STATIC, **settings
    )


def random_longspec(**settings: Any) -> LongSpec:
    """A block that reads the toy's only layer, whose rows are one number wide."""
    config = PrefixSizes(**{**TOY_LAYER, "head_dim": 1}).decoder()
    network = LongSpecNetwork(config, 8, 4, TARGET.vocab_size, "stored")
    return LongSpec(TARGET, randomly(network), **settings)


def translated(**settings: Any) -> Any:
    """Drafts in eight tokens of which one has no counterpart, for twelve of which six are merged."""
    draft = ToyTarget(vocab_size=8, memory=2, sharpness=5.0)
    spelled = ["a", "b", "c", "d", "e", "f", "da", "dab"]
    wanted = ["a", "b", "c", "d", "ab", "cd", "abc", "e", "da", "eb", "cda", "f"]
    return translating_drafter(draft, spelled, wanted, **settings)


class Listing(ToyTarget):
    """A draft model that scores every second token only."""

    listed = range(0, TARGET.vocab_size, 2)

    def forward(self, batch: Any, taps: Any = ()) -> Scores:
        scores = super().forward(batch, taps)
        return Scores([rows[:, list(self.listed)] for rows in scores.logits], scores.hidden)


def listing_model() -> DraftModel:
    """Drafts with it."""
    return DraftModel(Listing(12, memory=2, sharpness=5.0, blend=(9, 0.4)), vocabulary=Listing.listed)


def judged_by_token(rows: torch.Tensor) -> torch.Tensor:
    """Half of the tokens pass; the whole part of a toy's row is its token."""
    return (rows[:, 0].floor() * 0.37).remainder(1.0)


DRAFTERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "ngram": NGram,
    "ngram:width=1": lambda: NGram(width=1),
    "model (chain)": lambda: DraftModel(DRAFT),
    "model:width=3 (tree)": lambda: DraftModel(DRAFT, width=3, samples=0),
    "model:samples=3 (drawn tree)": lambda: DraftModel(DRAFT, samples=3),
    "medusa": random_medusa,
    "medusa:tree=dynamic": lambda: random_medusa(choose="dynamic"),
    "hydra": lambda: random_hydra(prefix=False),
    "hydra (prefix attention)": lambda: random_hydra(prefix=True),
    "ngram,hydra": lambda: Stack([NGram(), random_hydra(prefix=True)]),
    "ngram,model": lambda: Stack([NGram(), DraftModel(DRAFT)]),
    "eagle (tree)": lambda: random_eagle(depth=2, width=2),
    "aligned (shortlist)": listing_model,
    "kangaroo": random_kangaroo,
    "kangaroo:draw=false": lambda: random_kangaroo(draw=False),
    "falcon": random_falcon,
    "falcon:tree=dynamic": lambda: random_falcon(choose="dynamic"),
    "chimera": random_chimera,
    "longspec (tree)": lambda: random_longspec(depth=2, width=2),
    "omnidraft": translated,
    "omnidraft:draw=true": lambda: translated(draw=True),
}
VERIFIERS: dict[str, Callable[[], Any]] = {
    "greedy": Greedy,
    "coupled": Coupled,
    "point-mass": PointMass,
    "rejection": Rejection,
    "block": Block,
    "spectr": SpecTr,
    "typical": Typical,
    "threshold-rollback": ThresholdRollback,
    "judge": lambda: Judge(judged_by_token, TARGET.num_layers),
    "translated-rejection": TranslatedRejection,
    "synthetic": Synthetic,
}
GUIDES: dict[str, Callable[[], list[Any]]] = {
    "no guide": list,
    "stateful mask": lambda: [NoRepeatedPairs()],
    "second model": lambda: [Amateur(DRAFT)],
    "hidden tap": lambda: [HiddenShift(0)],
    "mask + model": lambda: [NoRepeatedPairs(), Amateur(DRAFT)],
}
PROMPTS = [[1, 2, 3, 1, 2], [4, 5], [6] * 20, [7, 8, 7, 8], [9], [1, 2, 3], [5, 5, 6], [2] * 9]
TOKENS = 10
SEED = 3


@dataclass(frozen=True)
class Cell:
    """One combination."""

    drafter: str
    verifier: str
    guide: str
    temperature: float
    batch: int

    @property
    def key(self) -> str:
        return (
            f"{self.drafter} | {self.verifier} | {self.guide} | T={self.temperature:g} | batch {self.batch}"
        )


@cache
def drafter(name: str) -> Any:
    """One drafter serves all cells, as it serves all requests of a server."""
    return DRAFTERS[name]()


@cache
def undrafted(guide: str, temperature: float) -> list[list[int]]:
    """Without drafts, one by one."""
    verifier = Coupled() if temperature else Greedy()
    settings = {"temperature": temperature, "seed": SEED}
    return [
        run(TARGET, verifier, None, GUIDES[guide](), [prompt], TOKENS, **settings)[0].tokens
        for prompt in PROMPTS
    ]


def cells() -> Iterator[Cell]:
    for drafter in DRAFTERS:
        for verifier in VERIFIERS:
            for guide in GUIDES:
                for temperature in (0.0, 1.0):
                    for batch in (1, 8):
                        yield Cell(drafter, verifier, guide, temperature, batch)


def outcome(cell: Cell) -> str:
    """``same ids`` or ``runs`` where the combination works, ``refused: …`` where it says it cannot.

    ``same ids`` means: the ids of undrafted decoding, which greedy decoding and the coupled verifier promise.
    The law of the other exact verifiers is checked by enumeration elsewhere.

    Raises:
        AssertionError: if a combination works but gives the wrong ids.
    """
    settings = {"temperature": cell.temperature, "seed": SEED}
    prompts = PROMPTS[: cell.batch]
    verifier, guides = VERIFIERS[cell.verifier](), GUIDES[cell.guide]()
    try:
        completions = run(TARGET, verifier, drafter(cell.drafter), guides, prompts, TOKENS, **settings)
    except Incompatible as error:
        return f"refused: {error.reason}"
    assert all(len(completion.tokens) == TOKENS for completion in completions)
    if not verifier.exact or (cell.temperature > 0 and cell.verifier != "coupled"):
        return "runs"
    expected = undrafted(cell.guide, cell.temperature)[: cell.batch]
    assert [completion.tokens for completion in completions] == expected, cell.key
    return "same ids"


def render(results: dict[str, str]) -> str:
    """The matrix as a Markdown page: drafters down, verifiers across, one table a temperature."""
    lines = [
        "# What combines with what",
        "",
        "Written by the tests (`tests/composition`); every cell was run alone and in a batch of 8, with each",
        f"of these guides: {', '.join(GUIDES)}. A cell may get better, never worse.",
        "",
        "- **same ids**: the very tokens of undrafted decoding, with every guide, alone and in a batch.",
        "- **runs**: works; for exact verifiers the distribution is checked by enumerating all outcomes.",
        "- **refused**: a clear error when the parts are put together; *n/m* counts such combinations.",
        "",
    ]
    for temperature in (0.0, 1.0):
        lines += [f"## Temperature {temperature:g}", "", f"| drafter | {' | '.join(VERIFIERS)} |"]
        lines.append("| --- " * (len(VERIFIERS) + 1) + "|")
        for drafter in DRAFTERS:
            row = []
            for verifier in VERIFIERS:
                found = [
                    results[cell.key]
                    for cell in cells()
                    if (cell.drafter, cell.verifier, cell.temperature) == (drafter, verifier, temperature)
                ]
                refused = sum(result.startswith("refused") for result in found)
                works = next((result for result in found if not result.startswith("refused")), "")
                share = f" {refused}/{len(found)}" if refused < len(found) else ""
                row.append("; ".join(filter(None, [works, f"refused{share}" if refused else ""])))
            lines.append(f"| `{drafter}` | {' | '.join(row)} |")
        lines.append("")
    reasons = sorted({result.removeprefix("refused: ") for result in results.values() if "refused" in result})
    lines += ["## Reasons for refusals", "", *(f"- {reason}" for reason in reasons), ""]
    return "\n".join(lines)
