"""Big Little Decoder's central claim: quality and speed as the two thresholds move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ventris.bench.likeness import mean_likeness
from ventris.engine.request import Completion
from ventris.papers.on_prompts import OnPrompts, speed, tokens_per_pass
from ventris.papers.reproduction import Reproduction, Row

FIGURE = "1.34 to 2.12 times as fast as the large model alone at up to one point of quality (T5, mT5)"


@dataclass(frozen=True, slots=True)
class Setting:
    """A pair of thresholds and what it came to.

    Attributes:
        confidence: Below it the small model hands over.
        nats: Above it the large model rolls back.
        likeness: ROUGE-L of the answers to the large model's own, 0 to 100.
        passes: Tokens a pass of the large model.
    """

    confidence: float
    nats: float
    likeness: float
    passes: float

    @property
    def method(self) -> dict[str, str]:
        """Policy and verifier, as everywhere in Ventris."""
        return {
            "policy": f"confidence-stop:{self.confidence:g}",
            "verifier": f"threshold-rollback:{self.nats:g}",
        }


def reproduce_bild(
    draft: str = "aligned",
    confidences: Sequence[float] = (0.0, 0.3, 0.5, 0.7, 0.9),
    nats: Sequence[float] = (1.0, 2.0, 3.0, 5.0),
    loss: float = 1.0,
    data: str | None = None,
    per_category: int | None = None,
    max_new_tokens: int = 128,
    repeats: int = 1,
    **settings: Any,
) -> Reproduction:
    """The best pair of thresholds for each quality, and the fastest within a loss in a race.

    Quality is likeness to the large model's own greedy answer (ROUGE-L over tokens): for a general model it
    is the only reference there is, and it is a strict one.

    Args:
        draft: The small model: ``aligned``, ``model:FOLDER``, or any drafter.
        confidences, nats: The grid of thresholds.
        loss: Points of ROUGE-L that the raced setting may lose.
        data: Prompts as JSONL; the built-in ones when not given.
        per_category: Prompts of each category; all when not given.
        max_new_tokens: Output tokens at most.
        repeats: How often each prompt is decoded in the race.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.
    """
    started = perf_counter()
    measured = OnPrompts(data, per_category, max_new_tokens, repeats, settings)
    plain = measured.answers()
    grid = [_try(measured, draft, Setting(c, n, 0, 0), plain) for c in confidences for n in nats]
    rows = [
        Row(
            f"tokens a pass at confidence {s.confidence:g}, {s.nats:g} nats, ROUGE-L {s.likeness:.1f}",
            s.passes,
            "tokens",
        )
        for s in best_by_quality(grid)
    ]
    within = [setting for setting in grid if setting.likeness >= 100 - loss]
    notes = [f"drafts by {draft}; quality is ROUGE-L to the large model's own greedy answers"]
    exact = {"name": "exact", "draft": draft}
    if within:
        chosen = max(within, key=lambda setting: setting.passes)
        report = measured.race([{"name": "bild", "draft": draft, **chosen.method}, exact])
        title = f"speed at confidence {chosen.confidence:g}, {chosen.nats:g} nats, against exact speculation"
        rows.append(Row(title, speed(report, "bild"), "x", speed(report, "exact")))
    else:
        notes.append(f"no pair of thresholds loses less than {loss:g} points, so none was raced")
    return Reproduction("bild", FIGURE, rows, perf_counter() - started, measured.notes(*notes))


def best_by_quality(grid: Sequence[Setting]) -> list[Setting]:
    """The settings that no other beats in both quality and tokens a pass, best quality first."""
    best: list[Setting] = []
    for setting in sorted(grid, key=lambda s: (-s.likeness, -s.passes)):
        if not best or setting.passes > best[-1].passes:
            best.append(setting)
    return best


def _try(measured: OnPrompts, draft: str, setting: Setting, plain: Sequence[Completion]) -> Setting:
    answers = measured.answers(draft=draft, **setting.method)
    alike = mean_likeness([done.tokens for done in answers], [done.tokens for done in plain])
    return Setting(setting.confidence, setting.nats, alike, tokens_per_pass(answers))
