"""Training Medusa-2: first heads alone, then heads and target, which becomes a new target of its own.

The folder that comes out is the new target, as transformers keeps a model; its heads lie in ``medusa/``.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ventris.draft.medusa_heads import MedusaHeads
from ventris.draft.target_head import TargetHead
from ventris.draft.target_sketch import TargetSketch
from ventris.draft.tuning import Tuning
from ventris.engine.errors import BadInput
from ventris.model import Model, load
from ventris.models.cache_folder import written_whole
from ventris.models.low_rank import LowRankChanges, apply_changes, untied
from ventris.models.target_folder import target_config, write_target_folder
from ventris.models.torch_decoder import TorchDecoder
from ventris.train.first_weights import go_on
from ventris.train.hidden_states import HiddenStates
from ventris.train.medusa import MedusaObjective
from ventris.train.medusa2_settings import Medusa2Settings
from ventris.train.medusa_joint import JointObjective
from ventris.train.model_card import tuned_card
from ventris.train.objectives import Lesson
from ventris.train.quality import Quality, tuned_quality
from ventris.train.run import Prepared, prepare, read_answers, save_checkpoint
from ventris.train.settings import TextSettings
from ventris.train.texts import Progress, read_prompts
from ventris.train.trainer import Trained, measure
from ventris.train.windows import Windows

HEADS = "medusa"
"""Folder of the heads in that of the tuned target: the name of their method."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came out.

    Attributes:
        trained: The heads, measured on what the tuned target itself says to the held-out prompts.
        quality: How far the target has moved.
    """

    trained: Trained
    quality: Quality


def train_medusa2(settings: Medusa2Settings, progress: Progress | None = None, command: str = "") -> Tuned:
    """Tune a target together with Medusa heads, and write it with them.

    May be killed at any moment: called again with the same settings it goes on where it was.

    Args:
        progress: Told what happens.
        command: For the model card.

    Raises:
        BadInput: for settings or data that cannot be used, a target that cannot be written as a folder, or a
            folder that holds something else.
    """
    prepared = prepare(settings, progress)
    model, lesson = prepared.lesson.model, prepared.lesson
    if model.source is None or model.tokenizer is None:
        raise BadInput(f"{settings.model} has no tokenizer to write beside the tuned target; use another")
    config = untied(lesson.config)
    target_config(config)  # so that nobody trains for an hour what cannot be written

    torch.manual_seed(settings.seed)
    heads, alone = _first_heads(prepared, settings, progress)
    decoder = TorchDecoder(lesson.config, model.source.weights, device=model.target.device)
    changes = LowRankChanges(lesson.config, settings.rank, settings.alpha, settings.dropout)
    objective = JointObjective(lesson, settings, heads, decoder, changes)
    apply_changes(decoder, changes)
    trained = prepared.train(objective, settings, "state", progress)

    write_target_folder(settings.folder, config, changes.merged(model.source.weights), model.tokenizer)
    # By its whole path: its own name might be that of another model.
    tuned = load(str(settings.folder.resolve()), device=str(model.target.device), threads=settings.threads)
    with changes.off():
        quality = tuned_quality(decoder, tuned.target, prepared.held_out)
        sketch = TargetSketch.of(tuned.target, model.tokenizer.fingerprint)
        sketch = replace(sketch, tuning=Tuning.of(decoder, tuned.target))
    final = _heads_of(tuned, prepared, settings, heads)
    answers = _own_answers(tuned, prepared, settings, progress)
    trained = replace(trained, ranks=measure(final, answers, tuned.target.device))
    facts = {
        **prepared.facts(trained),
        "quality": {name: round(value, 6) for name, value in asdict(quality).items()},
        "heads_alone_acceptance": alone and [round(share, 4) for share in alone.acceptance],
    }
    save_checkpoint(settings.folder / HEADS, final, sketch, trained, facts, command)
    with written_whole(settings.folder / "README.md") as temporary:
        temporary.write_text(tuned_card(Path(settings.model).name, HEADS, command, quality), "utf-8")
    shutil.rmtree(settings.folder / "run")
    return Tuned(trained, quality)


def _first_heads(
    prepared: Prepared, settings: Medusa2Settings, progress: Progress | None
) -> tuple[MedusaHeads, Trained | None]:
    """Heads on the target as it is (Medusa-1), and how they did unless they were given."""
    first = settings.first()
    objective = MedusaObjective(prepared.lesson, first)
    if settings.start is not None:
        target = prepared.lesson.model.target
        go_on(objective.network, HEADS, settings.start, target, ("heads", "layers", "rows"))
        return objective.network, None
    trained = prepared.train(objective, first, "heads", progress) if first.steps else None
    return objective.network, trained


def _heads_of(
    tuned: Model, prepared: Prepared, settings: Medusa2Settings, heads: MedusaHeads
) -> MedusaObjective:
    """The heads with the vocabulary rows of the tuned target."""
    assert tuned.source is not None
    shortlist = prepared.lesson.shortlist
    lesson = Lesson(tuned, untied(prepared.lesson.config), TargetHead.of(tuned.source, shortlist), shortlist)
    objective = MedusaObjective(lesson, settings)
    with torch.no_grad():
        for name, parameter in objective.network.named_parameters():
            parameter.copy_(heads.get_parameter(name))
    return objective


def _own_answers(
    tuned: Model, prepared: Prepared, settings: Medusa2Settings, progress: Progress | None
) -> Windows:
    """What the tuned target says to the held-out prompts, greedily: that is what its heads will guess."""
    prompts = read_prompts(settings.data, settings.limit)
    asked = [prompts[index] for index in sorted({text.prompt for text in prepared.held_out})]
    folder = settings.folder / "run" / "answers"
    layers = (tuned.target.num_layers,)
    hidden = HiddenStates.beneath(folder, layers, {})
    said = TextSettings((0.0,), max_new_tokens=settings.max_new_tokens, seed=settings.seed)
    texts = read_answers(tuned, asked, folder, hidden, said, settings.answer_batch, progress)
    return Windows(texts, layers, settings.window, settings.batch, settings.seed)
