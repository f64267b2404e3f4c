"""What a study hands back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ventris.study.law import LawFound
from ventris.study.profiles import Profile
from ventris.study.routed import RoutedRuns
from ventris.study.routers import RouterFound


@dataclass(frozen=True, slots=True)
class Pair:
    """A small model with the large one, in one method.

    Attributes:
        method: How the two choose a token together.
        small: The model whose own choice is compared: the tuned one in ``proxy``.
        kind: What it is made of.
        ratio: Parameters of the large model by its own.
        cut: Answers that reached the limit of tokens.
        likeness: ROUGE-L of the answers to those of the large model alone, 0 to 100.
        nats: Mean of -ln p of their tokens under the large model.
    """

    method: str
    small: str
    kind: str
    parameters: int
    ratio: float
    answers: int
    cut: int
    likeness: float
    nats: float
    profile: Profile


@dataclass(frozen=True, slots=True)
class StudyReport:
    """Figures of a whole study.

    Attributes:
        created: UTC, ISO 8601.
        model: Name of the large model.
        parameters: Of the large model.
        computed: Number format and device.
        prompts: Where they come from.
        pairs: In the order in which models and methods were named.
        laws: By method; a text says why there is none.
        routers: For the first small model and the large one's own choice; a text says why there are none.
        routed: Decoding with them; ``None`` where it was left out.
        warnings: What a reader must know before he believes a figure.
    """

    created: str
    model: str
    parameters: int
    computed: str
    prompts: str
    settings: dict[str, Any]
    pairs: list[Pair]
    laws: dict[str, LawFound | str]
    routers: list[RouterFound] | str
    routed: RoutedRuns | None
    warnings: list[str] = field(default_factory=list)

    def of(self, method: str) -> list[Pair]:
        """The pairs of one method."""
        return [pair for pair in self.pairs if pair.method == method]
