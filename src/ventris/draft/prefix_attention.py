"""Hydra++'s prefix attention: one decoder layer over the target's final-normed rows.

Ankner et al. 2024, arXiv 2402.05109. P is a layer of the target's own shape with a final norm of its own; its
input at position t is h_t, not an embedding, and it is causal. It sees committed tokens only, never guesses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ventris.engine.cache import KVCache
from ventris.engine.ledger import MemoryLedger
from ventris.engine.target import Rows, Target
from ventris.models.config import DecoderConfig
from ventris.models.rope import rope_tables
from ventris.models.stage import Array
from ventris.models.stages import as_array, drafting_dtype, rms_norm_rows, runs_natively, threads_of
from ventris.models.torch_decoder import TorchDecoder


@dataclass(frozen=True, slots=True)
class PrefixSizes:
    """Sizes of P; those of the target's layers."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    context_length: int
    rope_theta: float
    norm_eps: float

    @classmethod
    def of(cls, config: DecoderConfig) -> PrefixSizes:
        return cls(
            config.hidden_size,
            config.intermediate_size,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            config.context_length,
            config.rope_theta,
            config.norm_eps,
        )

    def decoder(self) -> DecoderConfig:
        """P as a decoder of one layer."""
        return DecoderConfig(
            family="prefix attention",
            vocab_size=1,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_layers=1,
            num_heads=self.heads,
            num_kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            context_length=self.context_length,
            norm_eps=self.norm_eps,
            rope_theta=self.rope_theta,
            tied_head=True,
        )

    def stored(self) -> dict[str, int | float]:
        return asdict(self)


class PrefixAttention(nn.Module):
    """P, as it is trained.

    Starts as the identity up to its final norm: the last matrices of both halves are zero.
    """

    def __init__(self, sizes: PrefixSizes) -> None:
        super().__init__()
        self.sizes = sizes
        d, queries, keys = sizes.hidden, sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
        self.attention_norm = nn.RMSNorm(d, sizes.norm_eps)
        self.query = nn.Linear(d, queries, bias=False)
        self.key = nn.Linear(d, keys, bias=False)
        self.value = nn.Linear(d, keys, bias=False)
        self.output = nn.Linear(queries, d, bias=False)
        self.mlp_norm = nn.RMSNorm(d, sizes.norm_eps)
        self.gate = nn.Linear(d, sizes.intermediate, bias=False)
        self.up = nn.Linear(d, sizes.intermediate, bias=False)
        self.down = nn.Linear(sizes.intermediate, d, bias=False)
        self.final_norm = nn.RMSNorm(d, sizes.norm_eps)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """g for every position of whole sequences, ``[B, L, d] -> [B, L, d]``; position 0 comes first."""
        cos, sin = self.tables(hidden)
        query, key, value = (part.transpose(1, 2) for part in self.project(hidden, cos, sin))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return self.finish(hidden, mixed.transpose(1, 2).flatten(2))

    def tables(self, rows: Tensor, more: int = 0) -> tuple[Tensor, Tensor]:
        """Cosines and sines for the places of ``rows: [B, L, d]`` and some more, ``[L + more, 1, half]``."""
        length = rows.shape[1] + more
        cos, sin = rope_tables(self.sizes.decoder(), self.sizes.rope_theta, length)
        return cos.to(rows)[:, None], sin.to(rows)[:, None]

    def project(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, ``[..., d] -> [..., heads, head_dim]``, turned by the rows' positions."""
        x = self.attention_norm(hidden)
        query, key, value = (
            projection(x).unflatten(-1, (-1, self.sizes.head_dim))
            for projection in (self.query, self.key, self.value)
        )
        return rotate(query, cos, sin), rotate(key, cos, sin), value

    def finish(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """The rest of the layer after attention, and the final norm."""
        hidden = hidden + self.output(mixed)
        x = self.mlp_norm(hidden)
        hidden = hidden + self.down(F.silu(self.gate(x)) * self.up(x))
        normed: Tensor = self.final_norm(hidden)
        return normed

    def weights(self) -> dict[str, Tensor]:
        """By the names of a transformers checkpoint with one layer."""
        layer = "model.layers.0"
        return {
            "model.embed_tokens.weight": torch.zeros(1, self.sizes.hidden),
            f"{layer}.input_layernorm.weight": self.attention_norm.weight.detach(),
            f"{layer}.self_attn.q_proj.weight": self.query.weight.detach(),
            f"{layer}.self_attn.k_proj.weight": self.key.weight.detach(),
            f"{layer}.self_attn.v_proj.weight": self.value.weight.detach(),
            f"{layer}.self_attn.o_proj.weight": self.output.weight.detach(),
            f"{layer}.post_attention_layernorm.weight": self.mlp_norm.weight.detach(),
            f"{layer}.mlp.gate_proj.weight": self.gate.weight.detach(),
            f"{layer}.mlp.up_proj.weight": self.up.weight.detach(),
            f"{layer}.mlp.down_proj.weight": self.down.weight.detach(),
            "model.norm.weight": self.final_norm.weight.detach(),
        }


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding: pairs (i, i + half) of the last axis turn by the angles of their positions."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


class CachedPrefix:
    """P for drafting: fed with the rows of each step, with keys and values kept a request."""

    def __init__(self, network: PrefixAttention, target: Target) -> None:
        config, weights = network.sizes.decoder(), network.weights()
        self.decoder: Target
        if runs_natively(target):
            from ventris.models.native import NativeDecoder

            self.dtype = torch.float32
            self.decoder = NativeDecoder.from_weights(config, weights, "int8", threads_of(target), 8)
        else:
            self.dtype = drafting_dtype(target.device)
            self.decoder = TorchDecoder(config, weights, self.dtype, target.device)
        self.norm = as_array(weights["model.norm.weight"])
        self.eps = config.norm_eps

    def new_cache(self, capacity: int, ledger: MemoryLedger, owner: str = "hydra prefix") -> KVCache:
        return self.decoder.new_cache(capacity, ledger, owner)

    def last_rows(self, fresh: Sequence[tuple[KVCache, Array]]) -> Array:
        """Append committed rows to each cache and return g at the last of them, ``[n, d]``.

        Args:
            fresh: For each request its cache and final-normed rows ``[new, d]``, at least one.
        """
        batch = [(cache, rows, range(-1, len(rows) - 1)) for cache, rows in fresh]
        ends = list(accumulate(len(rows) for _, rows in fresh))
        last = self.run(batch, [end - 1 for end in ends])
        for cache, rows in fresh:
            cache.commit(range(len(rows)))
        return last

    def run(self, batch: Sequence[tuple[KVCache, Array, Sequence[int]]], wanted: Sequence[int]) -> Array:
        """What the layer makes of some of the rows, normed, ``[wanted, d]``.

        Args:
            batch: For each request its cache, its new rows ``[n, d]``, and the parents of all scratch rows so
                far, of which the new ones are the last.
            wanted: Rows of the whole batch.
        """
        asked = [
            Rows(cache, [0] * len(rows), parents, len(parents) - len(rows), wanted=())
            for cache, rows, parents in batch
        ]
        rows = batch[0][1] if len(batch) == 1 else np.concatenate([rows for _, rows, _ in batch])
        hidden = torch.from_numpy(rows).to(self.decoder.device, self.dtype)
        out, _ = self.decoder.run_layers(asked, hidden, 0, 1)
        return rms_norm_rows(as_array(out)[list(wanted)], self.norm, self.eps)
