"""The layers of a decoder in plain torch: their weights, and how they are read from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.models.config import DecoderConfig
from ventris.models.cross_attention import CrossAttention
from ventris.models.weights import Weights, dense


class Linear:
    """``x @ weight.T + bias``; bfloat16 weights on a CPU are stored in oneDNN's blocked order.

    The reordered matrix takes about two thirds of the time of a plain one, which the kernel reorders
    again in every call.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.bias = bias
        self.packed = packs_for_onednn(weight)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self.packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        """``[n, in] -> [n, out]``"""
        if self.packed and x.shape[0]:
            packed: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
            return packed
        if self.packed:
            return x.new_empty((0, self.weight.shape[0]))
        return F.linear(x, self.weight, self.bias)


def packs_for_onednn(weight: Tensor) -> bool:
    """Whether this build of torch, on this processor, runs ``weight`` as a reordered matrix."""
    return (
        weight.dtype == torch.bfloat16
        and weight.device.type == "cpu"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


@dataclass(slots=True)
class Norm:
    """RMS norm over the last axis, computed in float32 or wider."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        wide = x.to(self.weight.dtype)
        return F.rms_norm(wide, self.weight.shape, self.weight, self.eps).to(x.dtype)


@dataclass(slots=True)
class Layer:
    """The weights of one block; the optional norms are ``None`` where the family has none.

    Attributes:
        token_norm: Norm of the token's embedding, where attention reads it before the hidden row.
        cross: The attention to lent rows, where there is one.
    """

    attention_norm: Norm
    qkv: Linear
    output: Linear
    mlp_norm: Norm
    gate_up: Linear
    down: Linear
    query_norm: Norm | None
    key_norm: Norm | None
    after_attention: Norm | None
    after_mlp: Norm | None
    window: int
    theta: float
    token_norm: Norm | None = None
    cross: CrossAttention | None = None


@dataclass(slots=True)
class Loader:
    """Reads a checkpoint's weights by name and joins those that run as one matrix.

    Attributes:
        first_layer: Number in the checkpoint of the configuration's layer 0.
        nbytes: Bytes read so far.
    """

    config: DecoderConfig
    weights: Weights
    dtype: torch.dtype
    device: torch.device
    first_layer: int = 0
    nbytes: int = 0

    def matrix(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        if name not in self.weights:
            raise BadInput(f"the {self.config.family} checkpoint has no weight {name!r}")
        matrix = dense(self.weights[name], dtype or self.dtype).to(self.device)
        self.nbytes += matrix.nbytes
        return matrix

    def linear(self, bias: bool, *names: str) -> Linear:
        """One matrix that holds the rows of all ``names``."""
        weight = torch.cat([self.matrix(f"{name}.weight") for name in names])
        joined = torch.cat([self.matrix(f"{name}.bias") for name in names]) if bias else None
        return Linear(weight, joined)

    def norm(self, name: str) -> Norm:
        weight = self.matrix(f"{name}.weight", torch.promote_types(self.dtype, torch.float32))
        return Norm(weight + 1 if self.config.norm_plus_one else weight, self.config.norm_eps)

    def layer(self, index: int) -> Layer:
        c = self.config
        at = f"model.layers.{self.first_layer + index}"
        heads, mlp = f"{at}.self_attn", f"{at}.mlp"
        before_mlp = "pre_feedforward_layernorm" if c.post_norms else "post_attention_layernorm"
        before_attention = "hidden_norm" if c.token_beside_hidden else "input_layernorm"
        return Layer(
            attention_norm=self.norm(f"{at}.{before_attention}"),
            qkv=self.linear(c.qkv_bias, f"{heads}.q_proj", f"{heads}.k_proj", f"{heads}.v_proj"),
            output=self.linear(c.output_bias, f"{heads}.o_proj"),
            mlp_norm=self.norm(f"{at}.{before_mlp}"),
            gate_up=self.linear(c.mlp_bias, f"{mlp}.gate_proj", f"{mlp}.up_proj"),
            down=self.linear(c.mlp_bias, f"{mlp}.down_proj"),
            query_norm=self.norm(f"{heads}.q_norm") if c.qk_norm else None,
            key_norm=self.norm(f"{heads}.k_norm") if c.qk_norm else None,
            after_attention=self.norm(f"{at}.post_attention_layernorm") if c.post_norms else None,
            after_mlp=self.norm(f"{at}.post_feedforward_layernorm") if c.post_norms else None,
            window=c.window(index),
            theta=c.theta(index),
            token_norm=self.norm(f"{at}.input_layernorm") if c.token_beside_hidden else None,
            cross=self.cross_attention(at) if c.cross_attention else None,
        )

    def cross_attention(self, at: str) -> CrossAttention:
        return CrossAttention(
            self.norm(f"{at}.cross_attention_layernorm"),
            self.linear(self.config.qkv_bias, f"{at}.cross_attn.q_proj"),
            self.linear(self.config.output_bias, f"{at}.cross_attn.o_proj"),
        )
