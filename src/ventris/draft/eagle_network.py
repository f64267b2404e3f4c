"""The network of EAGLE-3, as it is trained and stored; see :mod:`ventris.draft.eagle`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ventris.draft.branch_attention import attend_branches
from ventris.draft.prefix_attention import PrefixSizes, rotate
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.models.config import DecoderConfig
from ventris.models.rope import rope_tables


def eagle_taps(layers: int) -> tuple[int, int, int]:
    """A low, a middle and a high layer whose inputs are fused; what vLLM takes if a checkpoint names none."""
    return min(2, layers), layers // 2, max(layers - 3, 0)


class EagleNetwork(nn.Module):
    """One fully connected layer over the tapped rows, one decoder layer, and a head over the shortlist.

    Args:
        layer: Sizes of the decoder layer, those of the target's layers.
        taps: Layers of the target whose inputs are fused, from low to high.
        shortlist: Number of listed tokens.
    """

    ids: Tensor

    def __init__(self, layer: Mapping[str, Any], taps: Sequence[int], shortlist: int) -> None:
        super().__init__()
        self.layer = sizes = PrefixSizes(**layer)
        self.taps = tuple(taps)
        self.sizes: dict[str, Any] = {
            "layer": sizes.stored(),
            "taps": list(taps),
            "shortlist": shortlist,
        }
        d, queries, keys = sizes.hidden, sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
        self.fuse = nn.Linear(len(self.taps) * d, d, bias=False)
        self.token_norm = nn.RMSNorm(d, sizes.norm_eps)
        self.hidden_norm = nn.RMSNorm(d, sizes.norm_eps)
        self.query = nn.Linear(2 * d, queries, bias=False)
        self.key = nn.Linear(2 * d, keys, bias=False)
        self.value = nn.Linear(2 * d, keys, bias=False)
        self.output = nn.Linear(queries, d, bias=False)
        self.mlp_norm = nn.RMSNorm(d, sizes.norm_eps)
        self.gate = nn.Linear(d, sizes.intermediate, bias=False)
        self.up = nn.Linear(d, sizes.intermediate, bias=False)
        self.down = nn.Linear(sizes.intermediate, d, bias=False)
        self.final_norm = nn.RMSNorm(d, sizes.norm_eps)
        self.head = nn.Linear(d, shortlist, bias=False)
        self.register_buffer("ids", torch.zeros(shortlist, dtype=torch.int32))

    def begin(self, shortlist: Shortlist, head: TargetHead) -> None:
        """Start as the target's own head over its highest tapped row, with a layer that adds nothing yet."""
        with torch.no_grad():
            self.ids.copy_(shortlist.ids)
            self.fuse.weight.zero_()
            self.fuse.weight[:, -self.layer.hidden :].fill_diagonal_(1.0)
            self.output.weight.zero_()
            self.down.weight.zero_()
            self.final_norm.weight.copy_(head.norm)
            self.head.weight.copy_(head.rows)

    def go_on(self, trained: EagleNetwork) -> None:
        """Take a network's weights; rows of tokens that it does not list stay as they are."""
        places = {token: place for place, token in enumerate(trained.ids.tolist())}
        weights = dict(trained.named_parameters())
        with torch.no_grad():
            for row, token in enumerate(self.ids.tolist()):
                if token in places:
                    self.head.weight[row] = weights["head.weight"][places[token]]
            for name, parameter in self.named_parameters():
                if name != "head.weight":
                    parameter.copy_(weights[name])

    def rehearse(
        self, tapped: Sequence[Tensor], embedded: Tensor, row: Tensor, at: Tensor, steps: int
    ) -> Tensor:
        """Head inputs of a chain of guesses from some positions, ``[steps, n, d]``: training-time test.

        The first step reads the target's fused rows everywhere. The later ones read, at their own position,
        what the step before put out in place of them, and attend to the first step's rows up to the position
        where the chain began and to the chain itself, exactly as in drafting.

        Args:
            tapped: The target's rows of each tapped layer, ``[B, L, d]``.
            embedded: E(x_{l+1}) at place l, ``[B, L, d]``.
            row: Window of each position, ascending, int64 ``[n]``.
            at: Place in it, int64 ``[n]``.
        """
        # Products may be rounded to bfloat16 in training; the rows that are added up stay as they are.
        fused = self.fuse(torch.cat(list(tapped), dim=-1)).to(tapped[0])
        length = fused.shape[1]
        cos, sin = (
            table.to(fused) for table in rope_tables(self.decoder(), self.layer.rope_theta, length + steps)
        )
        seen = self._attention_input(embedded, fused)
        key = rotate(self._heads(self.key(seen)), cos[:length, None], sin[:length, None])
        value = self._heads(self.value(seen))
        windows = torch.bincount(row, minlength=len(fused)).tolist()
        chain: list[tuple[Tensor, Tensor]] = []
        hidden, states = fused[row, at], []
        for step in range(steps):
            place = (at + step).clamp_max(length - 1)
            x = self._attention_input(embedded[row, place], hidden)
            turn = cos[at + step, None], sin[at + step, None]
            query = rotate(self._heads(self.query(x)), *turn)
            if step:
                chain.append((rotate(self._heads(self.key(x)), *turn), self._heads(self.value(x))))
            hidden = self._finish(hidden, attend_branches(query, key, value, at, windows, chain))
            states.append(self.final_norm(hidden))
        return torch.stack(states)

    def _attention_input(self, embedded: Tensor, hidden: Tensor) -> Tensor:
        return torch.cat([self.token_norm(embedded), self.hidden_norm(hidden)], dim=-1)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.layer.head_dim)

    def _finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        hidden = hidden + self.output(attended)
        x = self.mlp_norm(hidden)
        updated: Tensor = hidden + self.down(F.silu(self.gate(x)) * self.up(x))
        return updated

    def decoder(self, vocab_size: int = 1) -> DecoderConfig:
        """The layer and the head as a decoder of one layer over the target's embedding."""
        return replace(
            self.layer.decoder(),
            family="EAGLE-3",
            vocab_size=vocab_size,
            tied_head=False,
            token_beside_hidden=True,
            borrowed_embedding=True,
            head_size=len(self.ids),
        )

    def weights(self) -> dict[str, Tensor]:
        """Those of :meth:`decoder`, by the names of a transformers checkpoint."""
        layer = "model.layers.0"
        named: dict[str, nn.Module] = {
            f"{layer}.input_layernorm": self.token_norm,
            f"{layer}.hidden_norm": self.hidden_norm,
            f"{layer}.self_attn.q_proj": self.query,
            f"{layer}.self_attn.k_proj": self.key,
            f"{layer}.self_attn.v_proj": self.value,
            f"{layer}.self_attn.o_proj": self.output,
            f"{layer}.post_attention_layernorm": self.mlp_norm,
            f"{layer}.mlp.gate_proj": self.gate,
            f"{layer}.mlp.up_proj": self.up,
            f"{layer}.mlp.down_proj": self.down,
            "model.norm": self.final_norm,
            "lm_head": self.head,
        }
        return {f"{name}.weight": next(module.parameters()).detach() for name, module in named.items()}
