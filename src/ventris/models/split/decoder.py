"""A decoder in two processes: embedding, first layers and head here, the other layers there.

Between the two travel hidden rows. The head is here, beside the embedding that it often shares its weights
with, because a hidden row is far smaller than a row of logits (576 numbers against 49,152 in SmolLM2-135M);
and of the rows behind the last layer only those come back whose logits are wanted, with the tapped ones.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ventris.engine.cache import KVCache
from ventris.engine.errors import BadInput
from ventris.engine.ledger import MemoryLedger
from ventris.engine.target import Rows, Scores
from ventris.models.config import DecoderConfig
from ventris.models.row_geometry import wanted_nodes
from ventris.models.split.cache import MirroredCache
from ventris.models.split.link import Link
from ventris.models.torch_decoder import TorchDecoder


class SplitDecoder:
    """A :class:`~ventris.engine.target.Target` of which this process holds the first layers.

    Args:
        config: Of the whole model.
        first: The layers of this process, with embedding and head.
        link: To the process with the others.
        second_weight_bytes: Of that process.
        close: Ends that process; called when this decoder is no longer used, or this process ends.

    Attributes:
        kernel: How the layers are divided, for facts and for the files of measurements.
        weight_bytes: Of the process that holds more: what bounds memory bounds each process by itself.
    """

    def __init__(
        self,
        config: DecoderConfig,
        first: TorchDecoder,
        link: Link,
        second_weight_bytes: int,
        close: Callable[[], None],
    ) -> None:
        self.config = config
        self.first = first
        self.cut = first.num_layers
        self.vocab_size = config.vocab_size
        self.hidden_size = config.hidden_size
        self.num_layers = config.num_layers
        self.context_length = config.context_length
        self.dtype = first.dtype
        self.device = first.device
        self.kernel = f"torch-{self.cut}+{self.num_layers - self.cut}"
        self.weight_bytes = max(first.weight_bytes, second_weight_bytes)
        self._link = link
        self.close = weakref.finalize(self, close)
        larger = max(self.cut, self.num_layers - self.cut)
        self._layout = replace(first.new_cache(1).layout, counted_layers=larger)

    def new_cache(
        self, capacity: int = 64, ledger: MemoryLedger | None = None, owner: str = "target"
    ) -> KVCache:
        """An empty cache for one sequence, with room for about ``capacity`` rows in both processes."""
        return MirroredCache(self._layout, capacity, ledger, owner, self._link)

    @torch.no_grad()
    def forward(self, batch: Sequence[Rows], taps: Sequence[int] = ()) -> Scores:
        """Embed, run all layers, and apply the final norm and the head to the wanted nodes.

        Raises:
            StageLost: if the second process is gone.
        """
        nodes, counts = wanted_nodes(batch)
        hidden, tapped = self._run(batch, self.embed(batch), 0, self.num_layers, taps, nodes)
        return Scores(list(torch.split(self.head(hidden), counts)), tapped)

    def embed(self, batch: Sequence[Rows]) -> Tensor:
        """Input rows of all nodes of the batch, ``[nodes, hidden]``."""
        return self.first.embed(batch)

    @torch.no_grad()
    def run_layers(
        self, batch: Sequence[Rows], hidden: Tensor, first: int, last: int, taps: Sequence[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Run layers ``first .. last - 1`` on ``hidden: [nodes, hidden]``, wherever they are.

        Raises:
            BadInput: if a node stands past the context, or a tap is no layer.
            StageLost: if the second process is needed, and gone.
        """
        return self._run(batch, hidden, first, last, taps, range(len(hidden)))

    def head(self, hidden: Tensor) -> Tensor:
        """Final norm and vocabulary projection, ``[n, hidden] -> [n, vocab]``."""
        return self.first.head(hidden)

    def _run(
        self,
        batch: Sequence[Rows],
        hidden: Tensor,
        first: int,
        last: int,
        taps: Sequence[int],
        nodes: Sequence[int],
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """As :meth:`run_layers`; of the rows after the last layer those of ``nodes`` alone."""
        if any(not 0 <= tap <= self.num_layers for tap in taps):
            raise BadInput(f"cannot tap layers {list(taps)}: this model has layers 0 to {self.num_layers}")
        if first < self.cut:
            here = min(last, self.cut)
            hidden, tapped = self.first.run_layers(
                batch, hidden, first, here, [tap for tap in taps if tap <= here]
            )
        else:
            tapped = {first: hidden} if first in taps else {}
            for rows in batch:
                # No layer of this process runs, which would have made room.
                rows.cache.reserve(rows.start + len(rows.tokens), rows.start)
        if last <= self.cut:
            return self._chosen(hidden, nodes), tapped
        there = sorted(tap for tap in set(taps) if max(first, self.cut) < tap <= last)
        back = self._ask(batch, hidden, max(first, self.cut), last, there, nodes)
        count = len(hidden)
        tapped |= {tap: back[at * count : (at + 1) * count] for at, tap in enumerate(there)}
        return back[len(there) * count :], tapped

    def _ask(
        self,
        batch: Sequence[Rows],
        hidden: Tensor,
        first: int,
        last: int,
        taps: Sequence[int],
        nodes: Sequence[int],
    ) -> Tensor:
        """The second process's rows: of each tap those of all nodes, then the chosen ones behind."""
        question = {
            "rows": [self._described(rows) for rows in batch],
            "layers": [first - self.cut, last - self.cut],
            "taps": [tap - self.cut for tap in taps],
            "nodes": list(nodes),
        }
        return self._link.ask(question, hidden.to(self.device, self.dtype))

    @staticmethod
    def _described(rows: Rows) -> dict[str, object]:
        cache = rows.cache
        assert isinstance(cache, MirroredCache)
        return {
            "cache": cache.number,
            "length": cache.length,
            "parents": list(rows.parents),
            "start": rows.start,
            "sees": None if rows.sees is None else list(rows.sees),
        }

    def _chosen(self, hidden: Tensor, nodes: Sequence[int]) -> Tensor:
        if len(nodes) == len(hidden):
            return hidden
        return hidden[torch.tensor(list(nodes), dtype=torch.int64, device=self.device)]
