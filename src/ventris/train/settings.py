"""The settings of a training run, declared once for Python, the command line and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field

from ventris.checked import checked_settings
from ventris.models.embedded import EMBEDDED_NAME

LossName = Literal[
    "cross_entropy", "soft_cross_entropy", "kl", "reverse_kl", "tvd", "tvd++", "tvd++position", "overlap"
]
"""Losses of :mod:`ventris.train.losses`; named here so that the command line need not load torch."""


@dataclass(frozen=True, slots=True)
class TextSettings:
    """What the texts depend on besides prompts and target.

    Attributes:
        temperatures: Taken in turn, so that every one answers a fair sample of the prompts.
        passes: How often each prompt is answered, each time at the next temperature.
        max_prompt_tokens: Longer prompts are left out.
    """

    temperatures: tuple[float, ...] = (0.0, 0.3, 0.7, 1.0)
    passes: int = 1
    top_p: float = 1.0
    max_new_tokens: int = 256
    max_prompt_tokens: int = 512
    seed: int = 0


# Settings whose default differs from method to method.


def _loss(default: LossName) -> Any:
    return Field(default, description="what is minimised: " + ", ".join(get_args(LossName)))


def _learning_rate(default: float) -> Any:
    return Field(default, gt=0, description="peak learning rate")


def _final_rate(default: float) -> Any:
    return Field(default, ge=0, le=1, description="last learning rate as a share of the peak")


def _warmup(default: int) -> Any:
    return Field(default, ge=0, description="steps of linear warm-up")


class TargetSettings(BaseModel):
    """A target, and what it runs on."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(EMBEDDED_NAME, description="target: the embedded name, a hub id, a folder or a .gguf")
    device: str = Field("auto", description="auto, cpu or cuda")
    dtype: str = Field("auto", description="number format that the target answers in, as for generate")
    threads: int | None = Field(None, ge=1, description="CPU threads; all available ones when not given")


class FormSettings(TargetSettings):
    """Generated schemas whose documents the target writes."""

    out: str = Field(description="JSONL file to write")
    count: int = Field(1000, ge=1, description="schemas")
    temperatures: list[float] = Field(
        [0.0, 0.7], min_length=1, description="at which documents are written, in turn"
    )
    max_new_tokens: int = Field(
        256, ge=1, description="tokens of a document at most; longer ones are left out"
    )
    answer_batch: int = Field(16, ge=1, description="documents written side by side")
    seed: int = Field(0, ge=0, description="start of every random stream")


class PlaceSettings(TargetSettings):
    """The target of a training run, and where its files lie."""

    out: str = Field(description="folder for the checkpoint")
    cache: str | None = Field(
        None, description="folder for texts and hidden states; in Ventris's own cache if not given"
    )

    @property
    def folder(self) -> Path:
        return Path(self.out).expanduser()


class RunSettings(PlaceSettings):
    """What all drafters share: what is learnt from, and for how long."""

    data: str = Field(
        description="JSONL with a prompt (to be answered, or with an answer) or a text (learnt as it is) "
        "in each line"
    )

    limit: int | None = Field(None, ge=2, description="prompts used; all when not given")
    temperatures: list[float] = Field(
        [0.0, 0.3, 0.7, 1.0], min_length=1, description="at which prompts are answered, in turn"
    )
    passes: int = Field(1, ge=1, description="answers to each prompt")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus that answers are drawn from")
    max_new_tokens: int = Field(256, ge=1, description="tokens of an answer at most")
    answer_batch: int = Field(16, ge=1, description="prompts answered side by side")

    steps: int = Field(2000, ge=1, description="optimiser steps")
    batch: int = Field(16, ge=1, description="windows of a step")
    window: int = Field(512, ge=8, description="tokens of a window at most")
    positions: int = Field(1024, ge=1, description="positions of a step whose guesses are scored, at most")
    learning_rate: float = _learning_rate(1e-3)
    final_rate: float = _final_rate(0.05)
    warmup: int = _warmup(40)
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of matrices")
    bfloat16: bool = Field(False, description="round the products of training to bfloat16")
    clip: float = Field(1.0, gt=0, description="largest norm of a gradient")
    held_out: float = Field(0.05, gt=0, lt=1, description="share of the prompts kept for measuring")
    evaluate_every: int = Field(200, ge=1, description="steps between measurements on held-out text")
    save_every: int = Field(100, ge=1, description="steps between saved states")
    seed: int = Field(0, ge=0, description="start of every random stream")

    def texts(self) -> TextSettings:
        """The settings that the texts depend on."""
        return TextSettings(
            tuple(self.temperatures), self.passes, self.top_p, self.max_new_tokens, seed=self.seed
        )

    def deciding(self) -> dict[str, Any]:
        """The settings that the result depends on; of files their names alone."""
        places = {"out", "cache", "device", "threads", "answer_batch", "evaluate_every", "save_every"}
        return self.model_dump(exclude=places) | {"data": Path(self.data).name}

    def read_layers(self, layers: int) -> tuple[int, ...]:
        """Layers, of the ``layers`` of a target, whose inputs the method reads and others may not."""
        return ()

    def betas(self) -> tuple[float, float]:
        """Decay of the two moments of AdamW."""
        return 0.9, 0.999

    def rate_factor(self, parameter: str) -> float:
        """Factor on the learning rate of a parameter, by its name in the network."""
        return 1.0


class TrainSettings(RunSettings):
    """What methods share that draft in the target's own vocabulary."""

    shortlist: int = Field(8192, ge=0, description="draft vocabulary: most frequent tokens; 0 for all")
    heads: int = Field(4, ge=1, le=16, description="draft heads")
    loss: LossName = _loss("cross_entropy")


class OmniDraftSettings(RunSettings):
    """A draft model with a vocabulary of its own."""

    vocabulary: int = Field(4096, ge=300, description="tokens of its vocabulary, at most")
    layers: int = Field(4, ge=1, le=64, description="decoder layers")
    hidden: int = Field(256, ge=32, multiple_of=32, description="width of a row")
    context_length: int = Field(2048, ge=64, description="longest text in tokens")
    learning_rate: float = _learning_rate(2e-3)
    warmup: int = _warmup(100)


class AheadSettings(TrainSettings):
    """What methods share that learn several guesses in a row."""

    decay: float = Field(0.8, gt=0, le=1, description="factor on the loss from head to head")


class HeadSettings(AheadSettings):
    """What methods with several heads share."""

    own_rows: bool = Field(
        False, description="train vocabulary rows for each head (the papers' form, larger)"
    )


class MedusaSettings(HeadSettings):
    """Medusa-1: heads on a frozen target."""

    layers: int = Field(1, ge=1, le=8, description="residual blocks of a head")


class HydraSettings(HeadSettings):
    """Hydra, and Hydra++ with its three additions."""

    learning_rate: float = _learning_rate(5e-4)
    final_rate: float = _final_rate(0.33)
    warmup: int = _warmup(100)
    decay: float = Field(1.0, gt=0, le=1, description="factor on the loss from head to head")
    variant: Literal["hydra", "hydra++"] = Field(
        "hydra++",
        description="hydra++: four layers, prefix attention, and the teacher loss, unless said otherwise",
    )
    layers: int | None = Field(None, ge=1, le=8, description="layers of a head; 1 for hydra, 4 for hydra++")
    prefix: bool | None = Field(None, description="prefix attention; the default is the variant's")
    loss: LossName | None = Field(  # type: ignore[assignment]
        None, description="what is minimised; cross_entropy for hydra, soft_cross_entropy for hydra++"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of a layer's input dropped (the paper: 0.2)")

    def resolved(self) -> HydraSettings:
        """The same with the variant's choices filled in."""
        plus = self.variant == "hydra++"
        return self.model_copy(
            update={
                "layers": self.layers or (4 if plus else 1),
                "prefix": plus if self.prefix is None else self.prefix,
                "loss": self.loss or ("soft_cross_entropy" if plus else "cross_entropy"),
            }
        )


class EagleSettings(AheadSettings):
    """EAGLE-3: one decoder layer that goes on from its own features."""

    heads: int = Field(4, ge=1, le=16, description="guesses in a row that training rehearses")
    start: str | None = Field(None, description="folder of an EAGLE-3 drafter to go on from")
    loss: LossName = _loss("kl")
    warmup: int = _warmup(100)

    def deciding(self) -> dict[str, Any]:
        return super().deciding() | {"start": self.start and Path(self.start).name}


class NextTokenSettings(TrainSettings):
    """What drafters share that guess one token at a time and then go on from it."""

    heads: int = Field(4, ge=1, le=16, description="tokens ahead up to which acceptance is measured")
    own_rows: bool = Field(False, description="train vocabulary rows of its own (larger)")
    warmup: int = _warmup(100)


class AlignedSettings(NextTokenSettings):
    """An aligned draft model: a small decoder on the target's embedding."""

    start: str = Field(
        "kept",
        description="first weights: kept (of the target's own layers, evenly spaced from the first to the "
        "last), random, or the folder of an aligned draft model to go on from",
    )
    layers: int = Field(4, ge=1, le=32, description="decoder layers")
    loss: LossName = _loss("kl")
    learning_rate: float = _learning_rate(5e-4)

    def deciding(self) -> dict[str, Any]:
        return super().deciding() | {"start": Path(self.start).name}


class KangarooSettings(NextTokenSettings):
    """Kangaroo: an adapter behind the target's first layers."""

    exit_layer: int = Field(2, ge=1, description="layers of the target that draft")
    feed_forward: bool = Field(False, description="give the adapter a feed-forward part (larger)")
    loss: LossName = _loss("soft_cross_entropy")

    def read_layers(self, layers: int) -> tuple[int, ...]:
        return (self.exit_layer,)


class FalconSettings(TrainSettings):
    """Falcon: tokens guessed two at a time, trained with a glance at the right ones."""

    block: int = Field(2, ge=1, le=8, description="tokens guessed in a pass of the drafter")
    heads: int = Field(6, ge=1, le=16, description="tokens ahead up to which acceptance is measured")
    mixer: Literal["lstm", "linear"] = Field(
        "lstm", description="what reads token and feature before the layer; linear is EAGLE's form"
    )
    own_rows: bool = Field(False, description="train vocabulary rows of its own (larger)")
    loss: LossName = _loss("kl")
    label_share: float = Field(0.1, ge=0, le=1, description="share of the text's own token in that")
    token_weight: float = Field(
        0.1, ge=0, description="factor on the loss of tokens, that of features being 1"
    )
    glancing: float = Field(
        0.4,
        ge=0,
        le=2,
        description="positions glanced at for each wrong guess, first of all; 0 for a plain token shift",
    )
    glancing_end: float = Field(0.0, ge=0, le=2, description="the same at the end of training")
    noise: float = Field(0.1, ge=0, description="largest number of the noise on features that are read")
    warmup: int = _warmup(100)


class ChimeraSettings(HeadSettings):
    """Chimera: trigrams, one layer over the target's rows, and fused heads."""

    loss: LossName = _loss("soft_cross_entropy")
    learning_rate: float = _learning_rate(5e-4)
    warmup: int = _warmup(100)
    decay: float = Field(1.0, gt=0, le=1, description="factor on the loss from head to head")
    state_weight: float = Field(
        1.0, ge=0, description="factor on the distance of draft states from the target's rows"
    )
    left_out: Literal["nothing", "trigrams", "context"] = Field(
        "nothing", description="an ablation: nothing, trigrams or context is left out"
    )


class LongSpecSettings(NextTokenSettings):
    """LongSpec: a block with a sliding window that reads the target's last-layer keys and values."""

    sliding_window: int = Field(512, ge=1, description="positions that the block's own attention sees")
    offsets: int = Field(
        4, ge=1, le=16, description="how many places before a guess the target's rows end, at most"
    )
    anchors: int = Field(
        4, ge=0, description="first tokens that stay where they are when a text is moved, at most"
    )
    farthest: int | None = Field(
        None,
        ge=0,
        description="position up to which short texts are moved; the target's context if not given, 0: none",
    )
    start: str | None = Field(None, description="folder of a LongSpec drafter to go on from")
    learning_rate: float = _learning_rate(5e-4)
    final_rate: float = _final_rate(0.0)
    warmup: int = _warmup(200)
    weight_decay: float = Field(0.1, ge=0, description="decoupled weight decay of matrices")

    def read_layers(self, layers: int) -> tuple[int, ...]:
        return (layers - 1,)

    def betas(self) -> tuple[float, float]:
        return 0.9, 0.95

    def deciding(self) -> dict[str, Any]:
        return super().deciding() | {"start": self.start and Path(self.start).name}


SettingsT = TypeVar("SettingsT", bound=TargetSettings)


def read_settings(model: type[SettingsT], given: Mapping[str, Any]) -> SettingsT:
    """Check settings.

    Raises:
        BadInput: one line that names the setting and the rule.
    """
    return checked_settings(model, given, "ventris train")
