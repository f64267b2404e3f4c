"""The native CPU target: a decoder over packed weights, run by the compiled library."""

from __future__ import annotations

import ctypes
import os
import tempfile
import weakref
from array import array
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from ventris.engine.cache import CacheLayout, KVCache
from ventris.engine.errors import BadInput
from ventris.engine.ledger import MemoryLedger
from ventris.engine.sampling import Row
from ventris.engine.target import Rows, Scores
from ventris.models.config import DecoderConfig
from ventris.models.cross_attention import check_lent
from ventris.models.native import abi
from ventris.models.native.build import load_library
from ventris.models.native.pack import PackedModel, open_packed, pack
from ventris.models.native.rope_tables import RopeTables
from ventris.models.native.rows import most_probable
from ventris.models.weights import Weights

MAX_THREADS = 64


def default_threads() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class NativeDecoder:
    """A :class:`~ventris.engine.target.Target` on the CPU, with results that do not depend on the batch.

    Every number is computed by the same sequence of operations whatever else is computed with it: the
    logits of a node are bit-identical whether it is decoded alone, in a tree, in a chunk of the prompt
    or beside other requests. Calls from several threads are safe; they take turns.

    Args:
        config: Sizes and switches; those of ``packed``, with another ``context_length`` if wanted.
        packed: The weights.
        threads: Threads to compute with; ``None`` for all CPUs of the process.
        activation_bits: What activations are rounded to, in blocks of 32, before they meet 4- and 8-bit
            weights: 16 stays close to float32, 8 is faster for several nodes and is what llama.cpp does.
        lender: Whose embedding is read by a decoder that has none of its own (``borrowed_embedding``).

    Raises:
        NativeUnavailable: if the library cannot be compiled here.
    """

    def __init__(
        self,
        config: DecoderConfig,
        packed: PackedModel,
        threads: int | None = None,
        activation_bits: int = 16,
        lender: NativeDecoder | None = None,
    ) -> None:
        self.config = config
        self.lender = lender
        self.vocab_size = config.vocab_size
        self.head_size = config.head_size or config.vocab_size
        self.hidden_size = config.hidden_size
        self.num_layers = config.num_layers
        self.context_length = config.context_length
        self.device = torch.device("cpu")
        narrow = activation_bits == 8 and packed.dtype in ("int4", "int8")
        self.dtype = f"{packed.dtype}-a8" if narrow else packed.dtype
        self._activation_bits = activation_bits
        self.cache_dtype = torch.float32 if packed.dtype == "float32" else torch.bfloat16
        self.threads = max(1, min(threads or default_threads(), MAX_THREADS))
        self.weight_bytes = packed.weight_bytes
        self._packed = packed
        self._library = load_library()
        self.kernel: str = self._library.ventris_kernel().decode()
        self.build = Path(self._library._name).stem
        self._lent_dtype = self.cache_dtype if lender is None else lender.cache_dtype
        self._layout = CacheLayout(
            config.num_layers, config.num_kv_heads, config.head_dim, self.cache_dtype, self.device
        )
        self._ropes = RopeTables(config)
        self._model, self._layers = self._describe_model()
        self._handle = self._library.ventris_open(ctypes.byref(self._model))
        weakref.finalize(self, self._library.ventris_close, self._handle)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        threads: int | None = None,
        context_length: int | None = None,
        activation_bits: int = 16,
        lender: NativeDecoder | None = None,
    ) -> NativeDecoder:
        """Map a packed file.

        Args:
            path: The file.
            threads: As for the class.
            context_length: Longest text in tokens; ``None`` for that of the checkpoint.
            activation_bits: As for the class.
            lender: As for the class.

        Raises:
            BadInput: if the file is no packed model of this version.
        """
        packed = open_packed(path)
        config = packed.config
        if context_length is not None:
            config = config.with_context_length(context_length)
        return cls(config, packed, threads, activation_bits, lender)

    @classmethod
    def from_weights(
        cls,
        config: DecoderConfig,
        weights: Weights,
        dtype: str,
        threads: int | None = None,
        activation_bits: int = 16,
        context_length: int | None = None,
        lender: NativeDecoder | None = None,
    ) -> NativeDecoder:
        """Pack weights for this process only; otherwise as :meth:`open`."""
        with tempfile.TemporaryDirectory(prefix="ventris-") as folder:
            # The mapping outlives the file's name.
            packed = pack(config, weights, dtype, Path(folder) / "model.ventris")
            return cls.open(packed, threads, context_length, activation_bits, lender)

    def new_cache(
        self, capacity: int = 64, ledger: MemoryLedger | None = None, owner: str = "target"
    ) -> KVCache:
        """An empty cache for one sequence, with room for about ``capacity`` rows."""
        return KVCache(self._layout, capacity, ledger, owner)

    def forward(self, batch: Sequence[Rows], taps: Sequence[int] = ()) -> Scores:
        """Embed, run all layers, and apply the final norm and the head to the wanted nodes.

        Returns:
            Logits float32 ``[wanted nodes, vocab]`` for each entry, taps float32 ``[nodes, hidden]``.

        Raises:
            BadInput: for a token outside the vocabulary or a position outside the context.
        """
        counts = [len(rows.tokens if rows.wanted is None else rows.wanted) for rows in batch]
        logits = torch.empty((sum(counts), self.head_size))
        hidden = self._run(batch, 0, self.num_layers, taps, logits=logits)
        ends = list(accumulate(counts))
        return Scores([logits[end - count : end] for count, end in zip(counts, ends, strict=True)], hidden)

    def embed(self, batch: Sequence[Rows]) -> Tensor:
        """Input rows of all nodes of the batch, float32 ``[nodes, hidden]``."""
        out = torch.empty((sum(len(rows.tokens) for rows in batch), self.hidden_size))
        self._run(batch, 0, 0, (), hidden_out=out)
        return out

    def run_layers(
        self, batch: Sequence[Rows], hidden: Tensor, first: int, last: int, taps: Sequence[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Run layers ``first .. last - 1`` on ``hidden: [nodes, hidden]``.

        Returns the rows after layer ``last - 1`` and the tapped rows, float32 ``[nodes, hidden]``.
        """
        if not 0 <= first <= last <= self.num_layers:
            raise BadInput(f"layers {first} to {last} are not within the model's {self.num_layers}")
        rows = self._dense(hidden)
        out = torch.empty_like(rows)
        tapped = self._run(batch, first, last, taps, hidden_in=rows, hidden_out=out)
        return out, tapped

    def head(self, hidden: Tensor) -> Tensor:
        """Final norm and vocabulary projection, ``[n, hidden] -> [n, vocab]``, float32."""
        rows = self._dense(hidden)
        logits = torch.empty((rows.shape[0], self.head_size))
        if rows.shape[0]:
            self._library.ventris_head(self._handle, rows.data_ptr(), rows.shape[0], logits.data_ptr())
        return logits

    @staticmethod
    def most_probable(row: Row, count: int) -> list[tuple[int, float]]:
        """The ``count`` best tokens of a row of logits with their log-probabilities, in one pass."""
        return most_probable(row, count)

    def attention_row(self, cache: KVCache, layer: int, hidden_row: Tensor, position: int) -> Tensor:
        """Attention probabilities of one query over the committed rows, float32 ``[heads, length]``.

        Args:
            cache: Its committed rows are the keys.
            layer: The layer.
            hidden_row: Input row of that layer, ``[hidden]``.
            position: Position of the query; later keys, and keys outside a window, get 0.
        """
        row = self._dense(hidden_row.reshape(1, -1))
        config = self.config
        queries = torch.empty((config.num_heads, config.head_dim))
        ropes = self._ropes.up_to(position + 1)
        self._library.ventris_queries(
            self._handle, layer, position, row.data_ptr(), ropes, queries.data_ptr()
        )
        keys = cache.rows(layer)[0].float().repeat_interleave(config.num_heads // config.num_kv_heads, dim=0)
        scores = torch.einsum("hd,hnd->hn", queries, keys)
        if config.attention_softcap:
            scores = torch.tanh(scores / config.attention_softcap) * config.attention_softcap
        distance = position - cache.positions()[layer]
        hidden = distance < 0
        if window := config.window(layer):
            hidden |= distance >= window
        return scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)

    def _dense(self, rows: Tensor) -> Tensor:
        if rows.dim() != 2 or rows.shape[1] != self.hidden_size:
            raise BadInput(f"expected rows of {self.hidden_size} numbers, got shape {list(rows.shape)}")
        return rows.detach().to(torch.float32).contiguous()

    def _run(
        self,
        batch: Sequence[Rows],
        first: int,
        last: int,
        taps: Sequence[int],
        hidden_in: Tensor | None = None,
        hidden_out: Tensor | None = None,
        logits: Tensor | None = None,
    ) -> dict[int, Tensor]:
        """Run a batch through some layers into the given tensors; returns the taps."""
        call = array("q", (len(batch), first, last, len(taps), *taps))
        kept: list[Tensor] = []
        nodes = positions = 0
        for rows in batch:
            self._describe_rows(rows, call, kept)
            count = len(rows.tokens)
            nodes += count
            positions = max(positions, rows.cache.next_position + rows.start + count)
        if hidden_in is not None and hidden_in.shape[0] != nodes:
            raise BadInput(f"{hidden_in.shape[0]} hidden rows for {nodes} nodes")
        if any(not first <= tap <= last for tap in taps):
            raise BadInput(f"taps {list(taps)} are not all between layers {first} and {last}")
        tapped = torch.empty((len(taps), nodes, self.hidden_size)) if taps else None
        buffers = abi.Buffers(
            *(
                0 if tensor is None else tensor.data_ptr()
                for tensor in (hidden_in, hidden_out, tapped, logits)
            ),
            self._ropes.up_to(positions),
        )
        status = self._library.ventris_run(self._handle, call.buffer_info()[0], ctypes.byref(buffers))
        if status != abi.OK:
            raise self._explain(status, batch)
        return {} if tapped is None else dict(zip(taps, tapped, strict=True))

    def _describe_rows(self, rows: Rows, call: array[int], kept: list[Tensor]) -> None:
        """Append one request to the flat description that ``call.h`` documents."""
        cache, tokens, start = rows.cache, rows.tokens, rows.start
        count = len(tokens)
        if len(rows.parents) != start + count:
            raise BadInput(f"{len(rows.parents)} parents for {start + count} scratch rows")
        embeddings = 0
        if rows.embeddings is not None:
            dense = self._dense(rows.embeddings)
            if dense.shape[0] != count:
                raise BadInput(f"{dense.shape[0]} embeddings for {count} nodes")
            kept.append(dense)
            embeddings = dense.data_ptr()
        cache.reserve(start + count, start)
        call.extend((start, count, cache.next_position, embeddings, len(cache.spans)))
        for span in cache.spans:
            storage, positions = span.storage, span.positions
            address = stride = 0
            if positions is not None:
                if positions.stride(1) != 1:
                    positions = positions.contiguous()
                    kept.append(positions)
                address, stride = positions.data_ptr(), positions.stride(0)
            call.extend(
                (storage.data.data_ptr(), storage.capacity, span.used, span.first_position, address, stride)
            )
        self._describe_lent(rows.lent, call)
        call.extend(rows.parents)
        sees = rows.sees or ()
        if len(sees) not in (0, count):
            raise BadInput(f"{len(sees)} nodes say how far they look, of {count}")
        call.append(len(sees))
        call.extend(sees)
        call.extend(tokens)
        if rows.wanted is None:
            call.append(-1)
        else:
            call.append(len(rows.wanted))
            call.extend(rows.wanted)

    def _describe_lent(self, lent: KVCache | None, call: array[int]) -> None:
        if lent is None:
            call.append(0)
            return
        layout = lent.layout
        check_lent(self.config, layout)
        if layout.dtype != self._lent_dtype or layout.device.type != "cpu":
            raise BadInput(
                f"the lent rows are {layout.dtype} on {layout.device}, not {self._lent_dtype} here"
            )
        layer_bytes = layout.row_bytes // layout.layers
        call.append(len(lent.spans))
        for span in lent.spans:
            last = (layout.layers - 1) * layer_bytes * span.storage.capacity
            call.extend((span.storage.data.data_ptr() + last, span.storage.capacity, span.used))

    def _explain(self, status: int, batch: Sequence[Rows]) -> BadInput:
        if status == abi.TOKEN_OUT_OF_RANGE:
            outside = [t for rows in batch for t in rows.tokens if not 0 <= t < self.vocab_size]
            return BadInput(f"token {outside[0]} is outside the vocabulary of {self.vocab_size}")
        if status == abi.POSITION_OUT_OF_RANGE:
            return BadInput(
                f"the text is longer than the model's context of {self.context_length} positions; "
                f"shorten it, or load the model with a larger context_length"
            )
        if status == abi.NODE_OUT_OF_RANGE:
            return BadInput("a wanted node is none of the request's new nodes")
        return BadInput("a tree's parents must come before their children, and nodes look up to its rows")

    def _describe_model(self) -> tuple[abi.Model, ctypes.Array[abi.Layer]]:
        config, address = self.config, self._packed.address
        layers = (abi.Layer * config.num_layers)()
        for index, layer in enumerate(layers):
            name = f"layers.{index}"
            crossing = ("cross_query", "cross_output") if config.cross_attention else ()
            for matrix in ("query_key_value", "output", "gate_up", "down", *crossing):
                setattr(layer, matrix, self._matrix(f"{name}.{matrix}"))
            for norm in (
                "input_norm",
                "attention_output_norm",
                "feed_forward_norm",
                "feed_forward_output_norm",
                "query_norm",
                "key_norm",
                "token_norm",
                "cross_norm",
            ):
                setattr(layer, norm, address(f"{name}.{norm}"))
            layer.window = config.window(index)
            layer.rope_table = self._ropes.index(config.theta(index))
        model = abi.Model(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            layer_count=config.num_layers,
            heads=config.num_heads,
            kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            rotary_dim=config.rotary_dim or config.head_dim,
            context_length=config.context_length,
            activation=abi.ACTIVATIONS[config.activation],
            bfloat_cache=self.cache_dtype == torch.bfloat16,
            bfloat_lent=self._lent_dtype == torch.bfloat16,
            threads=self.threads,
            norm_epsilon=config.norm_eps,
            query_scale=config.query_scale or config.head_dim**-0.5,
            attention_softcap=config.attention_softcap,
            logit_softcap=config.logit_softcap,
            embedding_scale=config.embedding_scale,
            layers=layers,
            final_norm=address("final_norm"),
            embedding=self._matrix("embedding") if self.lender is None else self.lender._model.embedding,
            head=self._matrix("embedding" if config.tied_head else "head"),
        )
        return model, layers

    def _matrix(self, name: str) -> abi.Matrix:
        entry = self._packed.tensors[name]
        address = self._packed.address
        return abi.Matrix(
            address(name),
            address(f"{name}.bias"),
            entry.rows,
            entry.columns,
            abi.KINDS[entry.kind],
            self._activation_bits,
        )
