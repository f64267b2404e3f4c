"""Attention over parts of the keys, put together by their log-sum-exps.

Yang et al. 2025, arXiv 2502.17421 (hybrid tree attention). All nodes of a tree see every committed row, so
that part needs no mask and runs in the quickest kernel; the few rows of the tree itself are masked. With o_i
the result over part i and l_i the logarithm of its softmax's denominator, the result over all keys is
sum o_i exp(l_i - l) with l = log sum exp(l_i): the very softmax over the union.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Part:
    """Attention over some of the keys.

    Attributes:
        mixed: Weighted sums of the values, ``[kv_heads, queries, head_dim]``.
        log_sum: Log-sum-exp of the scores, float32 or wider, ``[kv_heads, queries]``.
    """

    mixed: Tensor
    log_sum: Tensor


def attend_part(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    mask: Tensor | None = None,
    cap: float = 0.0,
) -> Part:
    """Attention over one part.

    Args:
        query: ``[kv_heads, queries, head_dim]``.
        keys: ``[kv_heads, rows, head_dim]``; so are ``values``.
        scale: Factor on the scores.
        mask: Added to the scores, ``[queries, rows]``; every query must see a row.
        cap: Soft cap of the scores; 0 for none.
    """
    if mask is None and not cap and query.device.type == "cpu":
        mixed, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query[None], keys[None], values[None], scale=scale
        )
        return Part(mixed[0], log_sum[0])
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = (query @ keys.transpose(-1, -2)).to(wide) * scale
    if cap:
        scores = torch.tanh(scores / cap) * cap
    if mask is not None:
        scores = scores + mask
    return Part(scores.softmax(dim=-1).to(values.dtype) @ values, scores.logsumexp(dim=-1))


def merge(parts: Sequence[Part]) -> Tensor:
    """Attention over all parts together, ``[kv_heads, queries, head_dim]``."""
    if len(parts) == 1:
        return parts[0].mixed
    log_sums = torch.stack([part.log_sum for part in parts])
    weights = log_sums.softmax(dim=0)[..., None]
    mixed = torch.stack([part.mixed for part in parts])
    return (weights * mixed).sum(dim=0).to(mixed.dtype)


def attend_parts(
    query: Tensor,
    parts: Sequence[tuple[Tensor, Tensor]],
    scale: float,
    mask: Tensor | None = None,
    cap: float = 0.0,
) -> Tensor:
    """Attention of grouped queries over the keys and values of all parts.

    Heads that share their keys become further queries, so that nothing is expanded.

    Args:
        query: ``[kv_heads, group, n, head_dim]``.
        parts: Keys and values ``[kv_heads, rows, head_dim]`` each; empty ones are passed over.
        scale: Factor on the scores.
        mask: Added to the scores of the last part, ``[n, rows]``.
        cap: Soft cap of the scores; 0 for none.

    Returns:
        As the query; zeros where there are no rows at all.
    """
    folded = query.flatten(1, 2)
    masks: list[Tensor | None] = [None] * len(parts)
    if mask is not None:
        masks[-1] = mask.repeat(query.shape[1], 1)
    found = [
        attend_part(folded, keys.to(query.dtype), values.to(query.dtype), scale, own, cap)
        for (keys, values), own in zip(parts, masks, strict=True)
        if keys.shape[1]
    ]
    return (merge(found) if found else torch.zeros_like(folded)).view(query.shape)
