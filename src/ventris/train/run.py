"""A whole training run: texts, hidden states, shortlist, training, checkpoint."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.draft.target_sketch import TargetSketch
from ventris.engine.errors import BadInput, VentrisError
from ventris.engine.target import Rows, Target
from ventris.model import Model, load
from ventris.models.cache_folder import cache_folder, written_whole
from ventris.models.load import DType
from ventris.train.hidden_states import HiddenStates
from ventris.train.model_card import model_card
from ventris.train.objectives import Lesson, Objective
from ventris.train.settings import PlaceSettings, RunSettings, TargetSettings, TrainSettings
from ventris.train.texts import (
    Progress,
    PromptRecord,
    claim_folder,
    distil_texts,
    prompts_digest,
    read_prompts,
)
from ventris.train.trainer import Trained, train
from ventris.train.windows import Text, Windows, open_texts, split

ANSWER_WEIGHT = 5
"""How much more an answer's token counts than a prompt's when the draft vocabulary is chosen."""

SettingsT = TypeVar("SettingsT", bound=TrainSettings)


def train_heads(
    settings: SettingsT,
    make: Callable[[Lesson, SettingsT], Objective],
    progress: Progress | None = None,
    command: str = "",
) -> Trained:
    """Train heads on the last hidden state of a frozen target, and write their checkpoint.

    May be killed at any moment: called again with the same settings it goes on where it was.

    Args:
        make: The objective.
        progress: Told what happens.
        command: For the model card.

    Raises:
        BadInput: for settings or data that cannot be used, or a folder that holds something else.
    """
    folder = settings.folder
    state = folder / "run" / "state.safetensors"
    if (folder / "config.json").exists() and not state.exists():
        raise BadInput(f"{folder} holds a finished checkpoint; choose another --out, or remove it")
    model = load_target(settings, progress)
    if model.source is None or model.source.config is None:
        raise BadInput(f"{settings.model} can only be run by transformers; heads need the native families")
    target, config = model.target, model.source.config
    sketch = TargetSketch.of(target, model.tokenizer.fingerprint if model.tokenizer else "")
    claim_folder(folder / "run" / "settings.json", {**settings.deciding(), "target": sketch.digest})
    before = _answers_of(target)

    texts, taps = prepare_texts(model, sketch, settings, progress)
    learnt, held_out = split(texts, settings.held_out, settings.seed)
    if not learnt or not held_out:
        raise BadInput(f"{settings.data} gives too few texts to train and measure on; give more prompts")
    shortlist = draft_vocabulary(model, settings, learnt, held_out)

    torch.manual_seed(settings.seed)
    head = TargetHead.of(model.source, shortlist)
    objective = make(Lesson(model, config, head, shortlist), settings)
    windows = Windows(learnt, taps, settings.window, settings.batch, settings.seed)
    measured_on = Windows(held_out, taps, settings.window, settings.batch, settings.seed)
    trained = train(objective, windows, measured_on, settings, state, target.device, progress)
    if not torch.equal(before, _answers_of(target)):
        raise VentrisError("the frozen target changed while the heads were trained; the result is void")

    facts = {
        "data": Path(settings.data).name,
        "prompts_digest": prompts_digest(read_prompts(settings.data, settings.limit)),
        "training_tokens": len(answer_tokens(learnt)),
        "shortlist_coverage": round(shortlist.coverage(answer_tokens(held_out)), 4),
        "held_out_texts": len(held_out),
        "held_out_acceptance": [round(share, 4) for share in trained.acceptance],
        "seed": settings.seed,
        "steps": settings.steps,
        "wall_seconds": round(trained.seconds, 1),
        "final_loss": round(trained.loss, 4),
        "device": target.device.type,
        "settings": settings.deciding(),
    }
    save_checkpoint(folder, objective, sketch, trained, facts)
    name = Path(settings.model).name
    with written_whole(folder / "README.md") as temporary:
        shown = {key: value for key, value in facts.items() if key != "settings"}
        temporary.write_text(model_card(objective.method, name, command, shown, trained.acceptance), "utf-8")
    shutil.rmtree(folder / "run")
    return trained


def load_target(settings: TargetSettings, progress: Progress | None = None) -> Model:
    """The model that is trained for, with its threads bound."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if progress:
        progress(f"loading {settings.model}", 0, 0)
    device = "cuda" if settings.device == "auto" and torch.cuda.is_available() else settings.device
    return load(settings.model, cast(DType, settings.dtype), device=device, threads=settings.threads)


def training_cache(settings: PlaceSettings) -> Path:
    """Where texts and hidden states of all runs lie."""
    return Path(settings.cache).expanduser() if settings.cache else cache_folder() / "training"


def prepare_texts(
    model: Model,
    sketch: TargetSketch,
    settings: TrainSettings,
    progress: Progress | None = None,
) -> tuple[list[Text], Sequence[int]]:
    """Texts with the target's hidden rows, made or found in the cache.

    Those of all :func:`learnt_layers`, unless the settings read others: then of these and the last.

    Returns:
        The texts, and the layers that their rows stand for.

    Raises:
        BadInput: for a layer that the target does not have.
    """
    target = model.target
    prompts = read_prompts(settings.data, settings.limit)
    folder, kind = texts_folder(model, sketch, settings, prompts)
    layers = learnt_layers(target)
    read = settings.read_layers(target.num_layers)
    if max(read, default=0) > target.num_layers:
        raise BadInput(
            f"layer {max(read)} cannot be read, the target has {target.num_layers}; choose a lower one"
        )
    facts = {"target": sketch.digest, "kind": kind}
    other = None
    if not set(read) <= set(layers):
        other = HiddenStates.existing(folder, layers, facts)
        layers = tuple(sorted({*read, target.num_layers}))
    hidden = HiddenStates.beneath(folder, layers, facts)
    files = distil_texts(
        model, prompts, folder, settings.texts(), settings.answer_batch, progress, hidden.taps, hidden.keep
    )
    return open_texts(files, hidden.complete(target, files, progress, other)), hidden.taps


def texts_folder(
    model: Model, sketch: TargetSketch, settings: RunSettings, prompts: Sequence[PromptRecord]
) -> tuple[Path, str]:
    """Where the target's answers are kept, and the form of the target that gives them."""
    kind = "-".join(str(getattr(model.target, name, "")) for name in ("dtype", "kernel"))
    key = repr((sketch.digest, kind, prompts_digest(prompts), settings.texts()))
    return training_cache(settings) / hashlib.sha256(key.encode()).hexdigest()[:16], kind


def draft_vocabulary(
    model: Model, settings: TrainSettings, learnt: Sequence[Text], held_out: Sequence[Text]
) -> Shortlist:
    """The tokens that drafts are made of: frequent in the answers, then in all prompts of the data.

    Few answers show few of the tokens that later answers need, and prompts cost nothing to read: with 28
    thousand answered tokens, 8192 listed ones cover 91.5 % of unseen answers without prompts and 94.5 % with
    them.
    """
    unseen = {text.prompt for text in held_out}
    records = [record for index, record in enumerate(read_prompts(settings.data)) if index not in unseen]
    tokenizer = model.tokenizer
    asked = [token for r in records for token in tokenizer.encode(r.content)] if tokenizer else []
    prompts = torch.tensor(asked, dtype=torch.int64)
    tokens = torch.cat([answer_tokens(learnt).repeat(ANSWER_WEIGHT), prompts])
    ends = tokenizer.eos_ids if tokenizer else ()
    return Shortlist.most_frequent(tokens, model.target.vocab_size, settings.shortlist, ends)


def answer_tokens(texts: Sequence[Text]) -> torch.Tensor:
    """All tokens that the target said, int64 ``[n]``."""
    return torch.cat([torch.from_numpy(text.tokens[text.answer].astype("int64")) for text in texts])


def learnt_layers(target: Target) -> tuple[int, ...]:
    """The layers whose rows some method learns from, so that one cache serves all of them.

    Medusa and Hydra read the last one; EAGLE-3 reads the inputs of layers 2, n / 2 and n - 3 of n.
    """
    layers = target.num_layers
    return tuple(sorted({min(2, layers), layers // 2, max(layers - 3, 0), layers}))


def save_checkpoint(
    folder: Path, objective: Objective, sketch: TargetSketch, trained: Trained, facts: dict[str, Any]
) -> None:
    """Write the network, half as large where it was trained and exact where it was copied."""
    parameters = dict(objective.network.named_parameters())
    tensors = {
        name: tensor.to(torch.bfloat16) if name in parameters else tensor
        for name, tensor in objective.network.state_dict().items()
    }
    measured = objective.measured(trained.ranks)
    HeadCheckpoint(objective.method, sketch, objective.sizes, measured, tensors, facts).save(folder)


def _answers_of(target: Target) -> torch.Tensor:
    """The target's logits on a few tokens, bit for bit."""
    cache = target.new_cache(16)
    tokens = [i * 7919 % target.vocab_size for i in range(8)]
    logits = target.forward([Rows(cache, tokens, range(-1, len(tokens) - 1))]).logits[0]
    cache.release()
    return logits
