"""The trainer: AdamW with warm-up and cosine, the same for every method, resumable to the bit.

Whatever is random in a step is seeded by the run's seed and the step's number, so a state needs no
generators: on a CPU with as many threads, a run that was killed and resumed ends with the same weights as
an unbroken one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from ventris.engine.errors import BrokenModel
from ventris.train.ahead import acceptance_by_depth
from ventris.train.objectives import Objective
from ventris.train.settings import RunSettings
from ventris.train.state import Progressed, load_state, save_state
from ventris.train.texts import Progress
from ventris.train.windows import Batch, Windows


@dataclass(frozen=True, slots=True)
class Trained:
    """What came out.

    Attributes:
        ranks: Rank of the right token at each depth on held-out text, int64 ``[positions, depths]``.
        loss: Mean of the last steps.
        seconds: Time that training took.
    """

    ranks: Tensor
    loss: float
    seconds: float

    @property
    def acceptance(self) -> list[float]:
        """Held-out acceptance of a chain of best guesses, by depth."""
        return acceptance_by_depth(self.ranks)


def train(
    objective: Objective,
    windows: Windows,
    held_out: Windows,
    settings: RunSettings,
    state: Path,
    device: torch.device,
    progress: Progress | None = None,
) -> Trained:
    """Run the steps that ``state`` does not hold yet.

    Raises:
        BrokenModel: if the loss is no number.
    """
    network = objective.network
    optimizer = make_optimizer(network, settings)
    done = load_state(state, network, optimizer)
    started = perf_counter() - done.seconds
    loss, shown = done.loss, ""
    for step in range(done.step, settings.steps):
        if progress:
            said = "" if math.isnan(loss) else f": loss {loss:.3f}{shown}"
            progress(f"training {objective.method}{said}", step, settings.steps)
        value = float(_step(objective, optimizer, windows.batch(step).to(device), settings, step))
        if not math.isfinite(value):
            raise BrokenModel(f"the loss is {value} at step {step}; lower the learning rate")
        loss = value if math.isnan(loss) else loss + 0.05 * (value - loss)
        last = step + 1 == settings.steps
        if last or (step + 1) % settings.save_every == 0:
            save_state(state, network, optimizer, Progressed(step + 1, perf_counter() - started, loss))
        if (step + 1) % settings.evaluate_every == 0 and not last and progress:
            shown = ", accepts " + show_acceptance(acceptance_by_depth(measure(objective, held_out, device)))
    seconds = perf_counter() - started
    _round_weights(network)
    return Trained(measure(objective, held_out, device), loss, seconds)


def make_optimizer(network: nn.Module, settings: RunSettings) -> torch.optim.AdamW:
    """AdamW; vectors and biases do not decay, and each parameter has its own factor on the rate."""
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((parameter.dim() > 1, settings.rate_factor(name)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": some, "weight_decay": settings.weight_decay if decays else 0.0, "factor": factor}
            for (decays, factor), some in groups.items()
        ],
        lr=settings.learning_rate,
        betas=settings.betas(),
    )


def learning_rate(step: int, settings: RunSettings) -> float:
    """Linear warm-up to the peak, then a cosine down to its final share."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    place = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    share = settings.final_rate + (1 - settings.final_rate) * 0.5 * (1 + math.cos(math.pi * place))
    return settings.learning_rate * share


def _step(
    objective: Objective, optimizer: torch.optim.AdamW, batch: Batch, settings: RunSettings, step: int
) -> Tensor:
    """One update; its random choices depend on seed and step alone."""
    seed = settings.seed * 1_000_003 + step
    for group in optimizer.param_groups:
        group["lr"] = group["factor"] * learning_rate(step, settings)
    optimizer.zero_grad(set_to_none=True)
    objective.network.train()
    devices = [torch.cuda.current_device()] if batch.tokens.is_cuda else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)  # for dropout
        with torch.autocast(batch.tokens.device.type, torch.bfloat16, settings.bfloat16):
            loss = objective.loss(batch, torch.Generator().manual_seed(seed))
        if loss.requires_grad:  # not if no window of the batch holds an answer long enough
            torch.autograd.backward(loss)
    for parameter in objective.network.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    torch.nn.utils.clip_grad_norm_(objective.network.parameters(), settings.clip)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def measure(objective: Objective, held_out: Windows, device: torch.device) -> Tensor:
    """Ranks over all held-out text, int64 ``[positions, depths]``."""
    objective.network.eval()
    return torch.cat([objective.ranks(batch.to(device)) for batch in held_out.once()])


def show_acceptance(acceptance: Sequence[float]) -> str:
    return " ".join(f"{share:.2f}" for share in acceptance)


@torch.no_grad()
def _round_weights(network: nn.Module) -> None:
    """To what the checkpoint holds, so that what is measured is what is shipped."""
    for parameter in network.parameters():
        parameter.copy_(parameter.to(torch.bfloat16))
