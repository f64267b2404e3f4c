"""Training a judge; see :mod:`ventris.verify.judge`.

The target stays frozen and its rows are computed once; what is trained is one logistic unit, in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.target_sketch import TargetSketch
from ventris.engine.errors import BadInput
from ventris.models.cache_folder import written_whole
from ventris.train.judge_examples import Examples, prepare_examples
from ventris.train.judge_settings import JudgeSettings
from ventris.train.marked_answers import Mark
from ventris.train.model_card import judge_card
from ventris.train.probe import Probe, area_under_curve, fit_probe, threshold_that_catches
from ventris.train.run import load_target, refuse_finished
from ventris.train.texts import Progress
from ventris.verify.judge_head import JudgeHead, scaled

SWEEP = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Thresholds that the checkpoint tells about, besides its own."""


@dataclass(frozen=True, slots=True)
class JudgeTrained:
    """What came out.

    Attributes:
        probe: The unit.
        measured: On questions held out: ``area`` under the ROC curve, ``threshold``, shares of right tokens
            ``passed`` and wrong tokens ``caught`` there and for other thresholds, ``areas`` by family.
    """

    probe: Probe
    measured: Mapping[str, Any]


def train_judge(settings: JudgeSettings, progress: Progress | None = None, command: str = "") -> JudgeTrained:
    """Train a judge for a target, and write its checkpoint.

    Args:
        progress: Told what happens.
        command: For the model card.

    Raises:
        BadInput: for settings or data that cannot be used, or a folder that holds a checkpoint already.
    """
    settings.check()
    refuse_finished(settings.folder)
    model = load_target(settings, progress)
    examples = prepare_examples(model, settings, progress)
    trained = fit_judge(examples, settings)
    layer = model.target.num_layers if settings.layer is None else settings.layer
    head = judge_of(trained.probe, layer)
    facts = {
        "tokens": len(examples.marks),
        "wrong_tokens": int((examples.marks == Mark.WRONG).sum()),
        "questions": len(set(examples.question.tolist())),
        "families": ", ".join(examples.families),
        "dtype": str(getattr(model.target, "dtype", "")).removeprefix("torch."),
        "settings": settings.deciding(),
    }
    tokenizer = model.tokenizer.fingerprint if model.tokenizer else ""
    sketch = TargetSketch.of(model.target, tokenizer)
    HeadCheckpoint("judge", sketch, head.sizes, trained.measured, head.state_dict(), facts).save(
        settings.folder
    )
    name = settings.model.rstrip("/").rpartition("/")[2]
    with written_whole(settings.folder / "README.md") as temporary:
        temporary.write_text(judge_card(name, command, facts, trained.measured), encoding="utf-8")
    return trained


def judge_of(probe: Probe, layer: int) -> JudgeHead:
    """The head that computes what a probe of scaled rows does."""
    head = JudgeHead(len(probe.weight), layer)
    with torch.no_grad():
        head.unit.weight.copy_(probe.weight[None])
        head.unit.bias.fill_(probe.bias)
    return head


def fit_judge(examples: Examples, settings: JudgeSettings) -> JudgeTrained:
    """Fit the unit on most questions and measure it on the others.

    Raises:
        BadInput: if a family is unknown, or right or wrong tokens are missing on either side.
    """
    for family in settings.left_out:
        if family not in examples.families:
            raise BadInput(
                f"there is no family {family!r} to leave out; there are: {', '.join(examples.families)}"
            )
    wanted = examples.marks != Mark.BEHIND
    examples = examples if settings.after == "wrong" else examples.of(wanted)
    held = held_out(examples, settings.held_out, settings.seed)
    left = [examples.families.index(name) for name in settings.left_out]
    known = ~torch.isin(examples.family, torch.tensor(left, dtype=examples.family.dtype))
    learnt, measured_on = examples.of(known & ~held), examples.of(known & held)
    for side in (learnt, measured_on):
        if not bool(side.right.any()) or bool(side.right.all()):
            raise BadInput("too few questions to train and measure on; give more tasks or data")
    rows = scaled(measured_on.rows)
    probe = fit_probe(
        scaled(learnt.rows), learnt.right, (rows, measured_on.right), settings.penalties, settings.weighted
    )
    scores = probe.scores(rows)
    # A judge meets drafted tokens that the target would not have said: those are the swapped ones.
    met = measured_on.swapped if bool((measured_on.swapped & ~measured_on.right).any()) else scores >= 0
    threshold = threshold_that_catches(scores[met], measured_on.right[met], settings.caught)
    right = measured_on.right[met]
    sweep = [[t, *shares(scores[met], right, t)] for t in SWEEP]
    passed, caught = shares(scores[met], right, threshold)
    unseen = examples.of(held)
    measured = {
        "area": round(probe.area, 4),
        "threshold": threshold,
        "passed": passed,
        "caught": caught,
        "sweep": sweep,
        "areas": areas(unseen, probe.scores(scaled(unseen.rows))),
        "penalty": probe.penalty,
    }
    return JudgeTrained(probe, measured)


def held_out(examples: Examples, share: float, seed: int) -> Tensor:
    """Whether each example's question is kept for measuring, bool ``[n]``."""
    questions = torch.tensor(sorted(set(examples.question.tolist())))
    order = torch.randperm(len(questions), generator=torch.Generator().manual_seed(seed))
    chosen = questions[order[: max(round(share * len(questions)), 1)]]
    return torch.isin(examples.question, chosen)


def shares(scores: Tensor, right: Tensor, threshold: float) -> tuple[float, float]:
    """Share of right tokens that pass a threshold, and share of wrong ones that do not."""
    passed = scores > threshold
    return round(float(passed[right].float().mean()), 4), round(float((~passed[~right]).float().mean()), 4)


def areas(examples: Examples, scores: Tensor) -> dict[str, float]:
    """Area under the ROC curve by family."""
    found = {}
    for index, family in enumerate(examples.families):
        some = examples.family == index
        found[family] = round(area_under_curve(scores[some], examples.right[some]), 4)
    return found
