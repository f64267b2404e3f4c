"""The state of a training run: one file, replaced whole, that a run killed at any moment resumes from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ventris.models.cache_folder import written_whole

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW remembers of each parameter, besides the number of steps."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far a run has come.

    Attributes:
        step: Optimiser steps done. The order of the data and all random choices are functions of seed and
            step.
        seconds: Time that training took so far, over all its pieces.
        loss: Running mean of the loss.
    """

    step: int = 0
    seconds: float = 0.0
    loss: float = math.nan


def save_state(path: Path, network: nn.Module, optimizer: torch.optim.AdamW, progressed: Progressed) -> None:
    """Write parameters, moments and step."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        tensors[f"parameter.{name}"] = parameter.detach().cpu()
        for moment in MOMENTS:
            tensors[f"{moment}.{name}"] = optimizer.state[parameter][moment].cpu()
    facts = {name: repr(value) for name, value in asdict(progressed).items()}
    with written_whole(path) as temporary:
        temporary.write_bytes(save({key: t.contiguous() for key, t in tensors.items()}, facts))


def load_state(path: Path, network: nn.Module, optimizer: torch.optim.AdamW) -> Progressed:
    """Read a state into network and optimiser; nothing happens if there is none."""
    if not path.is_file():
        return Progressed()
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
        step = int(facts["step"])
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(file.get_tensor(f"parameter.{name}"))
                state = {
                    moment: file.get_tensor(f"{moment}.{name}").to(parameter.device) for moment in MOMENTS
                }
                optimizer.state[parameter] = {"step": torch.tensor(float(step)), **state}
    return Progressed(step, float(facts["seconds"]), float(facts["loss"]))
