"""A whole training run: texts, hidden states, shortlist, training, checkpoint."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.eagle_network import eagle_taps
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.draft.target_sketch import TargetSketch
from ventris.draft.tuning import probe_logits
from ventris.engine.errors import BadInput, VentrisError
from ventris.engine.target import Target
from ventris.model import Model, load
from ventris.models.cache_folder import cache_folder, written_whole
from ventris.models.load import DType
from ventris.train.hidden_states import HiddenStates, check_layer
from ventris.train.model_card import model_card
from ventris.train.objectives import Lesson, Objective
from ventris.train.settings import PlaceSettings, RunSettings, TargetSettings, TextSettings, TrainSettings
from ventris.train.target_key import TargetKey
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
    prepared = prepare(settings, progress)
    torch.manual_seed(settings.seed)
    objective = make(prepared.lesson, settings)
    trained = prepared.train(objective, settings, "state", progress)
    save_checkpoint(settings.folder, objective, prepared.sketch, trained, prepared.facts(trained), command)
    shutil.rmtree(settings.folder / "run")
    return trained


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run has before it trains.

    Attributes:
        sketch: That of the target.
        learnt, held_out: Texts to train and to measure on.
        taps: Layers that their rows stand for.
        answers: What the target said before, to see that it stays as it is.
    """

    settings: TrainSettings
    lesson: Lesson
    sketch: TargetSketch
    learnt: Sequence[Text]
    held_out: Sequence[Text]
    taps: Sequence[int]
    answers: torch.Tensor

    def train(
        self, objective: Objective, settings: TrainSettings, state: str, progress: Progress | None = None
    ) -> Trained:
        """Train an objective.

        Args:
            state: Name of the file that a killed run goes on from.

        Raises:
            VentrisError: if the target is no longer what it was.
        """
        target = self.lesson.model.target
        shape = (self.taps, settings.window, settings.batch, settings.seed)
        file = settings.folder / "run" / f"{state}.safetensors"
        learnt, held_out = Windows(self.learnt, *shape), Windows(self.held_out, *shape)
        trained = train(objective, learnt, held_out, settings, file, target.device, progress)
        if not torch.equal(self.answers, probe_logits(target)):
            raise VentrisError("the frozen target changed while the heads were trained; the result is void")
        return trained

    def facts(self, trained: Trained) -> dict[str, Any]:
        """How a checkpoint was made."""
        settings = self.settings
        return {
            "data": Path(settings.data).name,
            "prompts_digest": prompts_digest(read_prompts(settings.data, settings.limit)),
            "training_tokens": len(answer_tokens(self.learnt)),
            "shortlist_coverage": round(self.lesson.shortlist.coverage(answer_tokens(self.held_out)), 4),
            "held_out_texts": len(self.held_out),
            "held_out_acceptance": [round(share, 4) for share in trained.acceptance],
            "seed": settings.seed,
            "steps": settings.steps,
            "wall_seconds": round(trained.seconds, 1),
            "final_loss": round(trained.loss, 4),
            "device": self.lesson.model.target.device.type,
            "settings": settings.deciding(),
        }


def prepare(settings: TrainSettings, progress: Progress | None = None) -> Prepared:
    """Load the target, and make its texts and the draft vocabulary.

    Raises:
        BadInput: for settings or data that cannot be used, or a folder that holds something else.
    """
    folder = settings.folder
    refuse_finished(folder)
    model = load_target(settings, progress)
    if model.source is None or model.source.config is None:
        raise BadInput(f"{settings.model} can only be run by transformers; heads need the native families")
    target, config = model.target, model.source.config
    sketch = TargetSketch.of(target, model.tokenizer.fingerprint if model.tokenizer else "")
    key = TargetKey.of(model, sketch)
    claim_folder(folder / "run" / "settings.json", {**settings.deciding(), "target": key.target})
    answers = probe_logits(target)

    texts, taps = prepare_texts(model, key, settings, progress)
    learnt, held_out = split(texts, settings.held_out, settings.seed)
    if not learnt or not held_out:
        raise BadInput(f"{settings.data} gives too few texts to train and measure on; give more prompts")
    check_measurable(held_out, settings)
    shortlist = draft_vocabulary(model, settings, learnt, held_out)
    lesson = Lesson(model, config, TargetHead.of(model.source, shortlist), shortlist)
    return Prepared(settings, lesson, sketch, learnt, held_out, taps, answers)


def refuse_finished(folder: Path) -> None:
    """Refuse a folder with a checkpoint in it, unless a run was killed while it wrote just that.

    Raises:
        BadInput: naming the folder.
    """
    if (folder / "config.json").exists() and not (folder / "run" / "state.safetensors").exists():
        raise BadInput(f"{folder} holds a finished checkpoint; choose another --out, or remove it")


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
    key: TargetKey,
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
    folder = texts_folder(key, settings, prompts)
    layers = learnt_layers(target)
    read = settings.read_layers(target.num_layers)
    check_layer(target, max(read, default=0))
    facts = asdict(key)
    other = None
    if not set(read) <= set(layers):
        other = HiddenStates.existing(folder, layers, facts)
        layers = tuple(sorted({*read, target.num_layers}))
    hidden = HiddenStates.beneath(folder, layers, facts)
    texts = read_answers(
        model, prompts, folder, hidden, settings.texts(), settings.answer_batch, progress, other
    )
    return texts, hidden.taps


def read_answers(
    model: Model,
    prompts: Sequence[PromptRecord],
    folder: Path,
    hidden: HiddenStates,
    settings: TextSettings,
    batch: int,
    progress: Progress | None = None,
    other: HiddenStates | None = None,
) -> list[Text]:
    """The target's answers with its rows of the layers of ``hidden``, made or found in ``folder``.

    Args:
        other: As for :meth:`HiddenStates.complete`.
    """
    files = distil_texts(model, prompts, folder, settings, batch, progress, hidden.taps, hidden.keep)
    return open_texts(files, hidden.complete(model.target, files, progress, other))


def texts_folder(key: TargetKey, settings: RunSettings, prompts: Sequence[PromptRecord]) -> Path:
    """Where a target's answers are kept."""
    facts = repr((key.target, key.kind, prompts_digest(prompts), settings.texts()))
    return training_cache(settings) / hashlib.sha256(facts.encode()).hexdigest()[:16]


def check_measurable(held_out: Sequence[Text], settings: TrainSettings) -> None:
    """Refuse texts on which a chain of guesses cannot be measured.

    A tree made of no measurement is empty, and its drafter would never say anything.

    Raises:
        BadInput: naming the settings that such texts depend on.
    """
    # The first guess is that of a window's third token: the target itself says the second one.
    if not any(text.answer[2 : settings.window].sum() >= settings.heads for text in held_out):
        raise BadInput(
            f"no held-out answer has {settings.heads} tokens to guess in a window of {settings.window} from "
            "the beginning of its prompt; raise window or max_new_tokens, or lower heads"
        )


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

    Medusa and Hydra read the last one; EAGLE-3 reads its taps.
    """
    return tuple(sorted({*eagle_taps(target.num_layers), target.num_layers}))


def save_checkpoint(
    folder: Path,
    objective: Objective,
    sketch: TargetSketch,
    trained: Trained,
    facts: dict[str, Any],
    command: str,
) -> None:
    """Write the network, half as large where it was trained and exact where it was copied, and its card.

    Args:
        facts: As of :meth:`Prepared.facts`.
        command: For the card.
    """
    parameters = dict(objective.network.named_parameters())
    tensors = {
        name: tensor.to(torch.bfloat16) if name in parameters else tensor
        for name, tensor in objective.network.state_dict().items()
    }
    measured = objective.measured(trained.ranks)
    HeadCheckpoint(objective.method, sketch, objective.sizes, measured, tensors, facts).save(folder)
    name = Path(facts["settings"]["model"]).name
    with written_whole(folder / "README.md") as temporary:
        shown = {key: value for key, value in facts.items() if key != "settings"}
        temporary.write_text(model_card(objective.method, name, command, shown, trained.acceptance), "utf-8")
