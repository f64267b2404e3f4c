"""Direct alignment's central claim: which loss a draft model is tuned with, on tasks near and far.

From one and the same draft model, as many steps with each loss; what counts is tokens per call of the target
on prompts of several kinds, for two draft lengths, and beside it the model that was not tuned.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

from ventris.draft.aligned import Aligned
from ventris.draft.checkpoint import find_checkpoint, read_config
from ventris.draft.decoder_beside import config_of
from ventris.engine.request import Completion
from ventris.models.weight_names import weight_shapes
from ventris.papers.on_prompts import OnPrompts, tokens_per_pass
from ventris.papers.reproduction import Reproduction, Row
from ventris.papers.tuned_draft import tune

FIGURE = "2.4 times as fast as plain decoding, block efficiency up to 2.3 (Llama 2 Chat 7B, drafter of 115M)"


def reproduce_direct_alignment(
    prompts: str,
    start: str | None = None,
    losses: Sequence[str] = ("kl", "tvd", "tvd++", "tvd++position"),
    depths: Sequence[int] = (3, 5),
    steps: int = 200,
    training: dict[str, Any] | None = None,
    data: str | None = None,
    per_category: int | None = None,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    **settings: Any,
) -> Reproduction:
    """Tokens per call of the target by loss, task and draft length, from one draft model.

    Args:
        prompts: JSONL of prompts to train on, as for ``ventris train``.
        start: Folder of the draft model that all tunings start from; the one that comes with Ventris when not
            given.
        losses: What the draft model is tuned with, in turn.
        depths: Tokens drafted ahead.
        steps: Optimiser steps of each tuning.
        training: Further settings of ``ventris train aligned``.
        data: Prompts to measure on, as JSONL with categories; the built-in ones when not given.
        per_category: Prompts of each category; all when not given.
        max_new_tokens: Output tokens at most.
        temperature: Of the answers; above 0 drafts are drawn, and TVD is what is refused of them.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.
    """
    started = perf_counter()
    measured = OnPrompts(data, per_category, max_new_tokens, 1, {**settings, "temperature": temperature})
    first = find_checkpoint("aligned", measured.model.target, start)
    tuned: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="ventris-") as folder:
        for loss in losses:
            tuned[loss] = Path(folder) / loss
            # Texts and hidden rows are made once and shared.
            rates = {"learning_rate": 1e-4, "warmup": steps // 10}
            given = {**rates, **(training or {}), "loss": loss, "steps": steps}
            tune(tuned[loss], first, prompts, measured.settings, given)
        untouched = _by_task(measured, first, depths)
        rows = []
        for loss, checkpoint in tuned.items():
            for (task, depth), value in _by_task(measured, checkpoint, depths).items():
                name = f"tokens a call after {loss}, {task}, {depth} drafted; untuned"
                rows.append(Row(name, value, "tokens", untouched[task, depth]))
    share = _read_share(measured, first)
    notes = measured.notes(
        f"{steps} steps with each loss from one draft model, temperature {temperature:g}",
        f"a drafted token reads {share:.3f} of the target's weights, so MBSU = tokens a call / "
        f"({share:.3f} * drafted + 1)",
    )
    return Reproduction("direct-alignment", FIGURE, rows, perf_counter() - started, notes)


def _by_task(measured: OnPrompts, checkpoint: Path, depths: Sequence[int]) -> dict[tuple[str, int], float]:
    """Block efficiency by category and draft length."""
    found: dict[tuple[str, int], float] = {}
    for depth in depths:
        drafter = Aligned.load(measured.model, checkpoint, depth=depth)
        answers = measured.answers(draft=drafter, policy="fixed", seed=0)
        by_task: dict[str, list[Completion]] = {}
        for question, answer in zip(measured.questions, answers, strict=True):
            by_task.setdefault(question.category, []).append(answer)
        found |= {(task, depth): tokens_per_pass(some) for task, some in by_task.items()}
    return found


def _read_share(measured: OnPrompts, checkpoint: Path) -> float:
    """Numbers that a draft reads, as a share of those that the target reads for a token."""
    sizes = read_config(checkpoint)["sizes"]
    config = config_of(measured.model.target)
    shapes = weight_shapes(config)
    layer = sum(prod(shape) for name, shape in shapes.items() if name.startswith("model.layers.0."))
    drafted: int = len(sizes["layers"]) * layer + sizes["shortlist"] * config.hidden_size
    return drafted / (config.num_layers * layer + config.vocab_size * config.hidden_size)
