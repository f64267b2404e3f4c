"""A draft model that goes on learning: its weights, what has been added to them, and the length head."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ventris.draft.decoder_network import whole_sequences
from ventris.models.config import DecoderConfig
from ventris.models.low_rank import low_rank_pairs, parameter_key, weight_name
from ventris.models.torch_decoder import TorchDecoder
from ventris.models.weights import Weights, dense

WIDTH = 64
"""Width of the length head."""

TRUSTING = 3.0
"""What an untrained length head answers, as a logit: it stops nothing before it has learnt."""


class LengthHead(nn.Module):
    """How likely a drafted token is accepted, from the draft model's last row at that token.

    One hidden layer, as in SpecDec++ (Huang et al. 2024, arXiv 2405.19715), whose head the paper takes over.

    Args:
        hidden: Width d of the draft model.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, WIDTH)
        self.outer = nn.Linear(WIDTH, 1)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.inner.weight.copy_(torch.randn(WIDTH, hidden, generator=generator) * hidden**-0.5)
            self.inner.bias.zero_()
            self.outer.weight.zero_()
            self.outer.bias.fill_(TRUSTING)

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits ``[n]`` of last-layer rows ``[n, d]``."""
        rows = hidden.float()
        rows = F.rms_norm(rows, rows.shape[-1:])
        logits: Tensor = self.outer(F.silu(self.inner(rows)))
        return logits[:, 0]


class LearningNetwork(nn.Module):
    """A draft model in training, either its matrices' low-rank changes or all of it.

    Low-rank changes are those of :mod:`ventris.models.low_rank`, unscaled: W becomes W + B A.

    Args:
        config: Sizes and switches.
        weights: A transformers checkpoint's weights by name.
        rank: r, or 0 to train every weight.
    """

    def __init__(self, config: DecoderConfig, weights: Weights, rank: int) -> None:
        super().__init__()
        self.config = config
        self.rank = rank
        self.length_head = LengthHead(config.hidden_size)
        self._base: dict[str, Tensor] = {}
        self._own = nn.ParameterDict()
        for name in weights:
            weight = dense(weights[name]).clone()
            if rank == 0:
                self._own[parameter_key(name)] = nn.Parameter(weight)
            else:
                self._base[name] = weight
        projections = {name: w.shape for name, w in self._base.items() if name.endswith("_proj.weight")}
        self._down, self._up = low_rank_pairs(projections, rank)

    @property
    def drafting(self) -> list[nn.Parameter]:
        """The parameters of the draft model, without the length head."""
        return [*self._own.values(), *self._down.values(), *self._up.values()]

    def weights(self) -> dict[str, Tensor]:
        """Whole weights by the names of a transformers checkpoint; gradients reach what is trained."""
        if self.rank == 0:
            return {weight_name(key): parameter for key, parameter in self._own.items()}
        changed = {weight_name(key): up @ self._down[key] for key, up in self._up.items()}
        return {name: w + changed[name] if name in changed else w for name, w in self._base.items()}

    def rows(self, ids: Tensor) -> tuple[Tensor, TorchDecoder]:
        """Final-normed rows of sequences of draft ids, ``[B, L] -> [B, L, d]``, and what made them."""
        decoder = TorchDecoder(self.config, self.weights(), device=ids.device)
        return whole_sequences(decoder, decoder.embed_tokens(ids)), decoder

    def learnt(self) -> dict[str, Tensor]:
        """All that training changes, for storing."""
        return {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}

    def fill(self, stored: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`learnt` gave."""
        self.load_state_dict({name: stored[name] for name in self.state_dict()})
