"""Rotary position tables, as transformers computes them (``modeling_rope_utils``)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ventris.models.config import DecoderConfig, RopeScaling


def rope_tables(config: DecoderConfig, theta: float, positions: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions ``first .. first + positions - 1``.

    Args:
        config: Supplies the rotated dimensions and the scaling.
        theta: Base of a layer, ``config.theta(layer)``. A local base (that of Gemma 3's window layers) is
            never scaled.
        positions: Number of positions.
        first: First position.

    Returns:
        Two float32 tensors ``[positions, rotary_dim / 2]``, multiplied by the attention factor of the
        scaling. A head's dimensions ``i`` and ``i + rotary_dim / 2`` turn by entry ``i``.
    """
    frequencies, attention_factor = rope_frequencies(config, theta)
    index = torch.arange(first, first + positions, dtype=torch.float32)
    angles = index[:, None] * frequencies
    return angles.cos() * attention_factor, angles.sin() * attention_factor


def rope_frequencies(config: DecoderConfig, theta: float) -> tuple[Tensor, float]:
    """Angles that a position adds, float32 ``[rotary_dim / 2]``, and the attention factor."""
    dimensions = config.rotary_dim or config.head_dim
    scaling = config.rope_scaling
    if config.rope_local_theta and theta == config.rope_local_theta != config.rope_theta:
        return _plain(theta, dimensions), 1.0
    if scaling.kind == "linear":
        return _plain(theta, dimensions) / scaling.factor, 1.0
    if scaling.kind == "dynamic":
        return _dynamic(config, theta, dimensions), 1.0
    if scaling.kind == "llama3":
        return _llama3(scaling, theta, dimensions), 1.0
    if scaling.kind == "yarn":
        return _yarn(scaling, theta, dimensions), _yarn_attention_factor(scaling)
    if scaling.kind == "longrope":
        return _longrope(config, theta, dimensions), _longrope_attention_factor(scaling)
    return _plain(theta, dimensions), 1.0


def _exponents(dimensions: int) -> Tensor:
    return torch.arange(0, dimensions, 2, dtype=torch.float32) / dimensions


def _plain(theta: float, dimensions: int) -> Tensor:
    return 1.0 / (theta ** _exponents(dimensions))


def _dynamic(config: DecoderConfig, theta: float, dimensions: int) -> Tensor:
    """NTK scaling for the whole context at once, so that a key never changes when the text grows."""
    trained = config.rope_scaling.original_context or config.context_length
    length = max(config.context_length, trained)
    factor = config.rope_scaling.factor
    base = theta * ((factor * length / trained) - (factor - 1)) ** (dimensions / (dimensions - 2))
    return _plain(base, dimensions)


def _llama3(scaling: RopeScaling, theta: float, dimensions: int) -> Tensor:
    frequencies = _plain(theta, dimensions)
    wavelengths = 2 * math.pi / frequencies
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    longest, shortest = scaling.original_context / low, scaling.original_context / high
    stretched = torch.where(wavelengths > longest, frequencies / scaling.factor, frequencies)
    smooth = (scaling.original_context / wavelengths - low) / (high - low)
    blended = (1 - smooth) * stretched / scaling.factor + smooth * stretched
    between = ~(wavelengths < shortest) & ~(wavelengths > longest)
    return torch.where(between, blended, stretched)


def _yarn(scaling: RopeScaling, theta: float, dimensions: int) -> Tensor:
    def dimension_of(rotations: float) -> float:
        """The dimension that turns this often over the trained context."""
        turns = scaling.original_context / (rotations * 2 * math.pi)
        return dimensions * math.log(turns) / (2 * math.log(theta))

    low, high = dimension_of(scaling.beta_fast), dimension_of(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dimensions - 1)
    width = high - low if high != low else 0.001
    ramp = ((torch.arange(dimensions // 2, dtype=torch.float32) - low) / width).clamp(0, 1)
    powers = theta ** _exponents(dimensions)
    kept, stretched = 1.0 / powers, 1.0 / (scaling.factor * powers)
    share_kept = 1 - ramp
    return stretched * (1 - share_kept) + kept * share_kept


def _yarn_attention_factor(scaling: RopeScaling) -> float:
    def magnitude(weight: float) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * weight * math.log(scaling.factor) + 1.0

    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return magnitude(scaling.mscale) / magnitude(scaling.mscale_all_dim)
    return magnitude(1.0)


def _longrope(config: DecoderConfig, theta: float, dimensions: int) -> Tensor:
    """LongRoPE with the set of factors that fits the context length.

    transformers chooses anew for every sequence and re-reads the text when it outgrows the trained
    context. Here a cached key keeps its angle for good, so the choice is made once, by the context length
    in use: up to the trained context the short factors, beyond it the long ones. A model loaded with its
    full context therefore computes short texts with the long factors; load it with ``context_length`` no
    larger than the trained context to get what transformers computes for them.
    """
    scaling = config.rope_scaling
    short = config.context_length <= scaling.original_context
    factors = torch.tensor(scaling.short_factor if short else scaling.long_factor, dtype=torch.float32)
    return 1.0 / (factors * theta ** _exponents(dimensions))


def _longrope_attention_factor(scaling: RopeScaling) -> float:
    """Of the checkpoint, and so the same for every context length in use."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.factor <= 1.0:
        return 1.0
    return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_context))
