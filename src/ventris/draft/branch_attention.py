"""Attention of chains that branch off a text at many places at once, as training rehearses drafts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def attend_branches(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    at: Tensor,
    windows: Sequence[int],
    chain: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:
    """Attention over the text's rows up to each position, and over the chain that began there.

    Args:
        query: ``[n, heads, head_dim]``.
        key: Of the text, ``[B, L, kv_heads, head_dim]``; so is ``value``.
        at: Place of each position in its window, int64 ``[n]``; windows follow one another.
        windows: How many of the n positions each window has.
        chain: Keys and values of the chains' rows, ``[n, kv_heads, head_dim]`` each.

    Returns:
        ``[n, heads * head_dim]``
    """
    parts, first = [], 0
    for window, count in enumerate(windows):
        if not count:
            continue
        own = slice(first, first + count)
        first += count
        causal = torch.arange(key.shape[1], device=at.device) <= at[own, None]
        itself = torch.eye(count, dtype=torch.bool, device=at.device)
        keys = torch.cat([key[window], *(keys[own] for keys, _ in chain)])
        values = torch.cat([value[window], *(values[own] for _, values in chain)])
        mixed = F.scaled_dot_product_attention(
            query[own].transpose(0, 1)[None],
            keys.transpose(0, 1)[None],
            values.transpose(0, 1)[None],
            attn_mask=torch.cat([causal, *[itself] * len(chain)], dim=1),
            enable_gqa=True,
        )
        parts.append(mixed[0].transpose(0, 1).flatten(1))
    return torch.cat(parts) if parts else query.flatten(1)
