"""The small models of a study, whatever they are made of, as models over the large one's vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ventris.draft.decoder_beside import config_of
from ventris.engine.errors import BadInput
from ventris.engine.target import Rows, Scores, Target
from ventris.model import Model
from ventris.models.config import DecoderConfig
from ventris.models.parameter_count import parameter_count
from ventris.models.row_geometry import wanted_nodes
from ventris.models.wrapped import WrappedTarget
from ventris.parts import build_drafter

if TYPE_CHECKING:
    from ventris.models.load import DType


Kind = Literal["early exit", "aligned draft model", "model"]
"""An early exit is the large model's own first layers, which nobody trained to end there."""


@dataclass(frozen=True, slots=True)
class SmallModel:
    """A model that writes until the large one has to step in.

    Attributes:
        name: As the user wrote it.
        kind: What it is made of.
        target: Scores the large model's whole vocabulary.
        parameters: Numbers in its weights, without those it borrows from the large model.
    """

    name: str
    kind: Kind
    target: Target
    parameters: int


def load_small(model: Model, name: str, dtype: DType = "auto") -> SmallModel:
    """A small model beside a large one.

    Args:
        name: ``exit:N``, ``aligned``, ``aligned:FOLDER``, or what :func:`ventris.load` takes.
        dtype: Format of the weights of a model of its own.

    Raises:
        BadInput: if there is no such model, it has another vocabulary, or its size cannot be told.
    """
    if name.startswith("exit:"):
        layers = _layers(name, model.target.num_layers)
        config = replace(config_of(model.target), num_layers=layers)
        return SmallModel(name, "early exit", FirstLayers(model.target, layers), parameter_count(config))
    if re.match(r"aligned(:|$)", name):
        drafter = build_drafter(name, model.workshop)
        decoder, listed = drafter.model, drafter.listed
        target = decoder if listed is None else Listed(decoder, listed.tolist(), model.target.vocab_size)
        return SmallModel(name, "aligned draft model", target, size_of(decoder, name))
    own = model.further_model(name, dtype, any_size=True)
    target, size = own, model.target.vocab_size
    if own.vocab_size != size:
        target = Listed(own, range(min(own.vocab_size, size)), size)
    return SmallModel(name, "model", target, size_of(own, name))


def size_of(target: Target, name: str) -> int:
    """Numbers in a model's weights.

    Raises:
        BadInput: if the model does not tell.
    """
    config = getattr(target, "config", None)
    if isinstance(config, DecoderConfig):
        return parameter_count(config)
    module = getattr(target, "model", None)
    if isinstance(module, torch.nn.Module):
        return sum(parameter.numel() for parameter in module.parameters())
    raise BadInput(f"cannot tell how many parameters {name!r} has")


def _layers(name: str, most: int) -> int:
    number = name.removeprefix("exit:")
    if not number.isdecimal() or not 1 <= int(number) < most:
        raise BadInput(f"the small model is {name!r}; write exit:N with N from 1 to {most - 1}")
    return int(number)


class FirstLayers(WrappedTarget):
    """A target's own first layers under its final norm and head: an early exit that nobody trained.

    Its caches are those of the whole model, of which the rows of later layers stay empty.

    Args:
        whole: The target; one that can run some of its layers.
        layers: How many of them.
    """

    def __init__(self, whole: Target, layers: int) -> None:
        super().__init__(whole)
        self.num_layers = layers

    def forward(self, batch: Sequence[Rows], taps: Sequence[int] = ()) -> Scores:
        """As :meth:`Target.forward`."""
        hidden, tapped = self.run_layers(batch, self.embed(batch), 0, self.num_layers, taps)
        nodes, counts = wanted_nodes(batch)
        return Scores(list(torch.split(self.head(hidden[nodes]), counts)), tapped)


class Listed(WrappedTarget):
    """A target that scores some tokens, as one that scores all: the others are impossible.

    Args:
        decoder: Its logits are those of the listed tokens; of further ones, beyond the vocabulary, they are
            left out.
        listed: Token ids, ascending.
        vocab_size: Tokens in all.
    """

    def __init__(self, decoder: Target, listed: Sequence[int], vocab_size: int) -> None:
        super().__init__(decoder)
        self.listed = torch.tensor(listed, dtype=torch.int64, device=decoder.device)
        self.vocab_size = vocab_size

    def forward(self, batch: Sequence[Rows], taps: Sequence[int] = ()) -> Scores:
        """As :meth:`Target.forward`; logits ``[wanted nodes, vocab]``."""
        scores = self.inner.forward(batch, taps)
        return Scores([self._whole(rows) for rows in scores.logits], scores.hidden)

    def head(self, hidden: Tensor) -> Tensor:
        """As :meth:`Target.head`."""
        return self._whole(self.inner.head(hidden))

    def _whole(self, logits: Tensor) -> Tensor:
        whole = logits.new_full((len(logits), self.vocab_size), -torch.inf)
        whole[:, self.listed] = logits[:, : len(self.listed)]
        return whole
