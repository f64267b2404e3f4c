"""Consecutive layers of a Llama-like decoder in plain torch.

One block with the switches of :class:`DecoderConfig` serves every family. The linear layers run once
over the flat nodes of all requests; only attention loops over the requests, because each has its own
cache and its own tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ventris.engine.cache import CacheLayout, KVCache, Span
from ventris.engine.errors import BadInput
from ventris.engine.ledger import MemoryLedger
from ventris.engine.target import Rows
from ventris.models.cross_attention import lent_views
from ventris.models.merged_attention import attend_parts
from ventris.models.rope import rope_tables
from ventris.models.row_geometry import scratch_positions, visible_rows
from ventris.models.torch_layers import Layer, Loader

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


MERGE_FROM = 4096
"""Committed rows from which a tree's attention is put together from two parts.

Below that one masked call is as quick; with 8192 rows and 5 nodes in float32 the parts take 4.6 ms where it
takes 7.2 ms.
"""


@dataclass(slots=True)
class Slot:
    """Where one request's nodes stand in a pass.

    Attributes:
        tail: The cache's span that takes the scratch rows.
        start: First scratch row that this pass writes.
        count: Number of nodes.
        masks: For each layer the additive mask ``[count, length + start + count]`` over committed and
            scratch rows, or ``None`` where every node sees everything.
        tree: The same over the scratch rows alone, ``[count, start + count]``, where the layers without a
            window put attention together from two parts; their mask is ``None`` then.
        lent: Keys and values that another decoder lends.
    """

    cache: KVCache
    tail: Span
    start: int
    count: int
    masks: list[Tensor | None]
    tree: Tensor | None = None
    lent: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class TorchStack:
    """Some layers of a decoder: hidden rows in, hidden rows out.

    Args:
        loader: Reads their weights; its configuration and type of numbers are the stack's.
    """

    def __init__(self, loader: Loader) -> None:
        config = loader.config
        self.config = config
        self.dtype = loader.dtype
        self.device = loader.device
        self.num_layers = config.num_layers
        self.context_length = config.context_length
        self.rotary_dim = config.rotary_dim or config.head_dim
        self.query_scale = config.query_scale or config.head_dim**-0.5
        self.wide = torch.promote_types(loader.dtype, torch.float32)
        self.activation = ACTIVATIONS[config.activation]
        self.layers = [loader.layer(i) for i in range(config.num_layers)]
        self.rope = {
            theta: tuple(table.to(self.device, self.wide) for table in self._tables(theta))
            for theta in {layer.theta for layer in self.layers}
        }

    def _tables(self, theta: float) -> tuple[Tensor, Tensor]:
        return rope_tables(self.config, theta, self.config.context_length)

    def new_cache(
        self, capacity: int = 64, ledger: MemoryLedger | None = None, owner: str = "target"
    ) -> KVCache:
        """An empty cache for one sequence, with room for about ``capacity`` rows."""
        c = self.config
        layout = CacheLayout(c.num_layers, c.num_kv_heads, c.head_dim, self.dtype, self.device)
        return KVCache(layout, capacity, ledger, owner)

    @torch.no_grad()
    def run_layers(
        self,
        batch: Sequence[Rows],
        hidden: Tensor,
        first: int,
        last: int,
        taps: Sequence[int] = (),
        beside: Tensor | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Run layers ``first .. last - 1`` on ``hidden: [nodes, hidden]``.

        ``beside`` are rows that attention reads beside the hidden ones, where it has a norm for them.
        Taps between ``first`` and ``last`` (both included) are returned, others are left out.

        Raises:
            BadInput: if a node stands past the context, or a tap is no layer.
        """
        if any(not 0 <= tap <= self.num_layers for tap in taps):
            raise BadInput(f"cannot tap layers {list(taps)}: this model has layers 0 to {self.num_layers}")
        positions = [scratch_positions(rows, self.context_length) for rows in batch]
        slots = [self.slot(rows, at) for rows, at in zip(batch, positions, strict=True)]
        new = [at[rows.start :] for rows, at in zip(batch, positions, strict=True)]
        where = torch.from_numpy(np.concatenate(new)).to(self.device)
        rope = {theta: (cos[where, None], sin[where, None]) for theta, (cos, sin) in self.rope.items()}

        hidden, tapped = hidden.to(self.device, self.dtype), {}
        for index in range(first, last):
            if index in taps:
                tapped[index] = hidden
            layer = self.layers[index]
            query, key, value = self.project(layer, hidden, *rope[layer.theta], beside)
            attended = [
                self._attend_slot(index, slot, *part)
                for slot, part in zip(slots, _split(slots, query, key, value), strict=True)
            ]
            hidden = self.add_attention(layer, hidden, _joined(attended))
            if layer.cross is not None:
                queries = _split(slots, self.cross_query(layer, hidden, *rope[layer.theta]))
                seen = [self._merged(own, slot.lent) for slot, (own,) in zip(slots, queries, strict=True)]
                hidden = hidden + layer.cross.output(_joined(seen))
            hidden = self.feed_forward(layer, hidden)
        if last in taps:
            tapped[last] = hidden
        return hidden, tapped

    @torch.no_grad()
    def attention_row(self, cache: KVCache, layer: int, hidden_row: Tensor, position: int) -> Tensor:
        """Attention of one query over the committed rows, ``[heads, length]``; each head sums to 1.

        Args:
            hidden_row: Input of that layer (a tap), ``[hidden]``.
            position: Position of the query; keys behind it are not seen.

        Raises:
            BadInput: if the query sees no committed row.
        """
        block = self.layers[layer]
        cos, sin = self.rope[block.theta]
        row = hidden_row[None].to(self.device, self.dtype)
        query, _, _ = self.project(block, row, cos[[position], None], sin[[position], None])
        keys, _ = cache.rows(layer)
        distance = position - cache.positions()[layer].to(self.device)
        visible = (distance >= 0) & ((distance < block.window) if block.window else True)
        if not visible.any():
            raise BadInput(f"position {position} sees none of the {cache.length} committed rows")
        mask = torch.zeros(cache.length, dtype=self.dtype, device=self.device)
        return self._probabilities(query, keys, mask.masked_fill_(~visible, -torch.inf)).flatten(0, 2)

    def project(
        self, layer: Layer, hidden: Tensor, cos: Tensor, sin: Tensor, beside: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``[n, heads, head_dim]``, keys and values ``[n, kv_heads, head_dim]``, rotated.

        ``cos`` and ``sin`` are the nodes' rows of the rotary tables, ``[n, 1, rotary_dim / 2]``.
        """
        c = self.config
        read = layer.attention_norm(hidden)
        if layer.token_norm is not None and beside is not None:
            read = torch.cat([layer.token_norm(beside), read], dim=-1)
        fused = layer.qkv(read).view(hidden.shape[0], -1, c.head_dim)
        turning, value = torch.split(fused, [c.num_heads + c.num_kv_heads, c.num_kv_heads], dim=1)
        if layer.query_norm is not None and layer.key_norm is not None:
            query, key = turning[:, : c.num_heads], turning[:, c.num_heads :]
            turning = torch.cat((layer.query_norm(query), layer.key_norm(key)), dim=1)
        query, key = torch.split(self._rotate(turning, cos, sin), [c.num_heads, c.num_kv_heads], dim=1)
        return query, key, value

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Turn the first ``rotary_dim`` dimensions of each head, pairing dimension i with i + half."""
        half = self.rotary_dim // 2
        left, right, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        turned = torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1).to(x.dtype)
        return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned

    def _attend_slot(self, layer: int, slot: Slot, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Write one request's keys and values, then let its nodes look at its rows."""
        row = slot.tail.used + slot.start
        block = slot.tail.storage.data[layer]
        block[0, :, row : row + slot.count] = key.transpose(0, 1)
        block[1, :, row : row + slot.count] = value.transpose(0, 1)
        if slot.tree is not None and not self.layers[layer].window:
            tree = block[:, :, slot.tail.used : row + slot.count]
            return self._merged(query, [*slot.cache.views(layer), (tree[0], tree[1])], slot.tree)
        keys, values = slot.cache.rows(layer, slot.start + slot.count)
        return self.attend(query, keys, values, slot.masks[layer])

    def _merged(
        self, query: Tensor, parts: Sequence[tuple[Tensor, Tensor]], mask: Tensor | None = None
    ) -> Tensor:
        """As :meth:`attend` over several parts of the rows; ``mask`` belongs to the last of them."""
        mixed = attend_parts(self._group(query), parts, self.query_scale, mask, self.config.attention_softcap)
        return mixed.permute(2, 0, 1, 3).flatten(1)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of ``query: [n, heads, head_dim]`` over ``keys, values: [kv_heads, rows, head_dim]``.

        ``mask`` is added to the scores, ``[n, rows]``. Returns ``[n, heads * head_dim]``.
        """
        if self.config.attention_softcap:
            mixed = self._probabilities(query, keys, mask).to(self.dtype) @ values[:, None]
        else:
            grouped = self._group(query)
            shape = (*grouped.shape[:2], *keys.shape[1:])
            mixed = F.scaled_dot_product_attention(
                grouped,
                keys[:, None].expand(shape),
                values[:, None].expand(shape),
                attn_mask=mask,
                scale=self.query_scale,
            )
        return mixed.permute(2, 0, 1, 3).flatten(1)

    def _probabilities(self, query: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """Attention probabilities, ``[kv_heads, heads / kv_heads, n, rows]``, float32 or wider."""
        scores = (self._group(query) @ keys[:, None].transpose(-1, -2)).to(self.wide) * self.query_scale
        cap = self.config.attention_softcap
        if cap:
            scores = torch.tanh(scores / cap) * cap
        if mask is not None:
            scores = scores + mask
        return scores.softmax(dim=-1)

    def _group(self, query: Tensor) -> Tensor:
        """``[n, heads, head_dim] -> [kv_heads, heads / kv_heads, n, head_dim]``"""
        c = self.config
        return query.view(-1, c.num_kv_heads, c.num_heads // c.num_kv_heads, c.head_dim).permute(1, 2, 0, 3)

    def cross_query(self, layer: Layer, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotated queries of the attention to lent rows, ``[n, heads, head_dim]``."""
        assert layer.cross is not None
        query = layer.cross.query(layer.cross.norm(hidden)).view(hidden.shape[0], -1, self.config.head_dim)
        return self._rotate(query if layer.query_norm is None else layer.query_norm(query), cos, sin)

    def finish(self, layer: Layer, hidden: Tensor, attended: Tensor) -> Tensor:
        """The rest of a block after attention, with both residual sums."""
        return self.feed_forward(layer, self.add_attention(layer, hidden, attended))

    @staticmethod
    def add_attention(layer: Layer, hidden: Tensor, attended: Tensor) -> Tensor:
        """Project what attention gave and add it."""
        update = layer.output(attended)
        if layer.after_attention is not None:
            update = layer.after_attention(update)
        return hidden + update

    def feed_forward(self, layer: Layer, hidden: Tensor) -> Tensor:
        """The feed-forward half of a block with its residual sum."""
        gate, up = layer.gate_up(layer.mlp_norm(hidden)).chunk(2, dim=-1)
        update = layer.down(self.activation(gate) * up)
        if layer.after_mlp is not None:
            update = layer.after_mlp(update)
        return hidden + update

    def slot(self, rows: Rows, positions: np.ndarray) -> Slot:
        """Reserve the scratch rows of one request and build its masks."""
        cache, count = rows.cache, len(rows.tokens)
        tail = cache.reserve(rows.start + count, rows.start)
        visible = visible_rows(rows)
        merged = self._merges(cache.length) and not visible.all()
        tree = self._additive(visible[:, cache.length :]) if merged else None
        masks = [None if merged else self._additive(visible)] * self.num_layers
        windowed = [index for index, layer in enumerate(self.layers) if layer.window]
        if windowed:
            committed = cache.positions().numpy()
            same_rows = all(span.positions is None for span in cache.spans)
            for index in windowed:
                if same_rows and index != windowed[0]:
                    masks[index] = masks[windowed[0]]
                    continue
                keys = np.concatenate((committed[index], positions))
                near = positions[rows.start :, None] - keys < self.layers[index].window
                masks[index] = self._additive(visible & near)
        return Slot(cache, tail, rows.start, count, masks, tree, lent_views(rows.lent, self.config))

    def _merges(self, committed: int) -> bool:
        """Whether attention to so many rows and a tree is put together from two parts."""
        return committed >= MERGE_FROM and self.device.type == "cpu" and not self.config.attention_softcap

    def _additive(self, visible: np.ndarray) -> Tensor | None:
        """0 where visible and -inf elsewhere; ``None`` where nothing is hidden."""
        if visible.all():
            return None
        mask = torch.zeros(visible.shape, dtype=self.dtype)
        return mask.masked_fill_(torch.from_numpy(~visible), -torch.inf).to(self.device)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _split(slots: Sequence[Slot], *flat: Tensor) -> list[tuple[Tensor, ...]]:
    """Cut tensors of all nodes into the parts of each request."""
    if len(slots) == 1:
        return [flat]
    counts = [slot.count for slot in slots]
    return list(zip(*(torch.split(tensor, counts) for tensor in flat), strict=True))
