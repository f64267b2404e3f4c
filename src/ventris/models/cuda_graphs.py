"""Small steps of one request on a GPU without launch overhead: static shapes, replayed as CUDA graphs.

A step with few nodes costs a GPU less than Python needs to launch its kernels. So the nodes are padded
to a bucket, the rows read are rounded up to a bucket, and the whole forward of a pair of buckets is
captured once and replayed. Keys and values stay in the cache's own storage; therefore the graphs
belong to one storage, and a request with another one captures its own.

The padded forward is ordinary torch code and runs on any device; only the capture needs CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ventris.engine.cache import Storage
from ventris.engine.errors import BadInput
from ventris.engine.target import Rows, Scores
from ventris.models.row_geometry import check_tokens, scratch_positions
from ventris.models.torch_decoder import TorchDecoder
from ventris.models.torch_stack import Slot
from ventris.models.wrapped import WrappedTarget

NODE_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
SMALLEST_LENGTH = 64


@dataclass(slots=True)
class Step:
    """The static inputs and outputs of one pair of buckets, and the graph that leads between them.

    Attributes:
        tokens: int64 ``[nodes]``; zeros behind the real nodes.
        positions: int64 ``[nodes]``.
        write_rows: int64 ``[nodes]``, storage row of each node's key and value. Padding writes behind
            the real nodes, where the next step writes over it.
        masks: By sliding window, ``[nodes, length]``. Padding is hidden from the real nodes; it sees
            everything itself, so that its softmax is defined.
        logits: ``[nodes, vocab]``.
        hidden: The tapped rows, ``[nodes, hidden]``.
        graph: A ``torch.cuda.CUDAGraph``, or ``None`` where the step runs eagerly.
    """

    tokens: Tensor
    positions: Tensor
    write_rows: Tensor
    masks: dict[int, Tensor]
    logits: Tensor
    hidden: dict[int, Tensor] = field(default_factory=dict)
    graph: Any = None


class GraphedDecoder(WrappedTarget):
    """A :class:`~ventris.engine.target.Target` that replays a :class:`TorchDecoder`'s small steps.

    Steps it cannot make static (several requests, given embeddings, more than 64 nodes, a cache of
    several spans or with dropped rows) run in the decoder as they are. Ask for caches of the final length, as
    growth means a new capture.

    Args:
        decoder: The decoder, on a CUDA device if ``capture`` is set.
        capture: Whether to capture graphs; without, the padded forward runs eagerly, which is slower
            than the decoder and serves to test its arithmetic.

    Raises:
        BadInput: if graphs are asked for where there is no CUDA device.
    """

    def __init__(self, decoder: TorchDecoder, capture: bool = True) -> None:
        if capture and not (torch.cuda.is_available() and decoder.device.type == "cuda"):
            raise BadInput("CUDA graphs need a decoder on a CUDA device; use the decoder itself elsewhere")
        super().__init__(decoder)
        self.decoder = decoder
        self.capture = capture
        self.weight_bytes = decoder.weight_bytes
        self.storage: Storage | None = None
        self.steps: dict[tuple[int, int, tuple[int, ...]], Step] = {}
        self.pool: Any = torch.cuda.graph_pool_handle() if capture else None

    def release(self) -> None:
        """Forget all graphs, and the storage that they hold."""
        self.steps = {}
        self.storage = None

    @torch.no_grad()
    def forward(self, batch: Sequence[Rows], taps: Sequence[int] = ()) -> Scores:
        """As the decoder's, replayed where the shapes allow it."""
        storage = self._static_storage(batch)
        if storage is None or any(not 0 <= tap <= self.num_layers for tap in taps):
            return self.decoder.forward(batch, taps)
        (rows,) = batch
        count = len(rows.tokens)
        check_tokens(rows.tokens, self.vocab_size)
        positions = scratch_positions(rows, self.context_length)
        slot = self.decoder.slot(rows, positions)
        first_row = slot.tail.used + rows.start
        if storage is not self.storage:
            self.release()
            self.storage = storage
            # Padding reads rows that nobody wrote; hidden or not, they must hold numbers.
            storage.data[..., first_row:, :] = 0

        length = length_bucket(first_row + count, storage.capacity)
        key = (node_bucket(count), length, tuple(taps))
        if key not in self.steps:
            self.steps[key] = self._new_step(key[0], length)
        step = self.steps[key]
        self._fill(step, rows, slot, positions[rows.start :])
        if self.capture:
            if step.graph is None:
                step.graph = self._captured(step, storage, length, taps)
            step.graph.replay()
        else:
            self._run(step, storage, length, taps)

        wanted = range(count) if rows.wanted is None else rows.wanted
        nodes = torch.tensor(list(wanted), dtype=torch.int64, device=self.device)
        return Scores([step.logits[nodes]], {tap: step.hidden[tap][:count].clone() for tap in taps})

    def _static_storage(self, batch: Sequence[Rows]) -> Storage | None:
        """The storage of a batch that fits a bucket, with room for its padding; else ``None``."""
        if len(batch) != 1 or batch[0].embeddings is not None:
            return None
        rows = batch[0]
        spans = rows.cache.spans
        plain = not spans or (len(spans) == 1 and spans[0].positions is None and spans[0].storage.users == 1)
        if not plain or not 0 < len(rows.tokens) <= NODE_BUCKETS[-1]:
            return None
        try:
            return rows.cache.reserve(rows.start + node_bucket(len(rows.tokens)), rows.start).storage
        except MemoryError:
            return None

    def _new_step(self, nodes: int, length: int) -> Step:
        def integers() -> Tensor:
            return torch.zeros(nodes, dtype=torch.int64, device=self.device)

        windows = {layer.window for layer in self.decoder.layers}
        shape = (nodes, length)
        masks = {w: torch.zeros(shape, dtype=self.decoder.dtype, device=self.device) for w in windows}
        logits = torch.empty((nodes, self.vocab_size), dtype=self.decoder.wide, device=self.device)
        return Step(integers(), integers(), integers(), masks, logits)

    def _fill(self, step: Step, rows: Rows, slot: Slot, positions: np.ndarray) -> None:
        """Copy one request's nodes into the static inputs."""
        count = len(rows.tokens)
        first_row = slot.tail.used + rows.start
        step.tokens.zero_()
        step.tokens[:count] = torch.tensor(rows.tokens, dtype=torch.int64)
        step.positions.zero_()
        step.positions[:count] = torch.from_numpy(positions)
        step.write_rows.copy_(torch.arange(first_row, first_row + len(step.tokens)))
        for layer, mask in zip(self.decoder.layers, slot.masks, strict=True):
            static = step.masks[layer.window]
            static.fill_(-torch.inf)
            static[:count, : first_row + count] = 0 if mask is None else mask
            static[count:] = 0

    def _run(self, step: Step, storage: Storage, length: int, taps: Sequence[int]) -> None:
        """The padded forward, from the static inputs to the static outputs."""
        decoder = self.decoder
        rope = {
            theta: (cos[step.positions, None], sin[step.positions, None])
            for theta, (cos, sin) in decoder.rope.items()
        }
        hidden = decoder.embed_tokens(step.tokens)
        for index, layer in enumerate(decoder.layers):
            if index in taps:
                step.hidden[index] = hidden
            query, key, value = decoder.project(layer, hidden, *rope[layer.theta])
            keys, values = storage.data[index]
            keys.index_copy_(1, step.write_rows, key.transpose(0, 1))
            values.index_copy_(1, step.write_rows, value.transpose(0, 1))
            attended = decoder.attend(query, keys[:, :length], values[:, :length], step.masks[layer.window])
            hidden = decoder.finish(layer, hidden, attended)
        if decoder.num_layers in taps:
            step.hidden[decoder.num_layers] = hidden
        step.logits.copy_(decoder.head(hidden))

    def _captured(self, step: Step, storage: Storage, length: int, taps: Sequence[int]) -> Any:
        """The step's graph; two plain runs on a side stream come first, as a capture demands."""
        cuda: Any = torch.cuda
        side = cuda.Stream(self.device)
        side.wait_stream(cuda.current_stream(self.device))
        with cuda.stream(side):
            for _ in range(2):
                self._run(step, storage, length, taps)
        cuda.current_stream(self.device).wait_stream(side)
        graph = cuda.CUDAGraph()
        # One memory pool for all: results are copied out before another graph is replayed.
        with cuda.graph(graph, pool=self.pool):
            self._run(step, storage, length, taps)
        return graph


def node_bucket(nodes: int) -> int:
    """The smallest bucket that holds ``nodes``."""
    return next(bucket for bucket in NODE_BUCKETS if bucket >= nodes)


def length_bucket(rows: int, capacity: int) -> int:
    """Rows to read: the next power of two, but no more than the storage has."""
    return min(max(SMALLEST_LENGTH, 1 << (rows - 1).bit_length()), capacity)
