"""The packed file: all weights of a decoder in the layout of the native kernels, ready to be mapped.

A file is ``MAGIC``, the offset and size of the index (two little-endian uint64), the tensors at multiples
of 64 bytes, and the index as JSON. ``panels.h`` describes the layout of a matrix.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.models.config import DecoderConfig, RopeScaling
from ventris.models.weights import BLOCK, QuantizedMatrix, Weight, Weights, dense, quantize

MAGIC = b"VENTRIS\0"
VERSION = 1
ALIGNMENT = 64
PANEL_ROWS = 16
HUGE_PAGE = 2 * 1024 * 1024
HUGE_PAGES_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
COPY_BYTES = 8 * HUGE_PAGE
DTYPES = ("float32", "bfloat16", "int8", "int4")

Bytes = NDArray[np.uint8]
Progress = Callable[[int, int], None]
"""Called with the number of tensors done and the number of all."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies in the file, and what it is.

    Attributes:
        kind: A matrix kind of ``panels.h``, or "vector" for plain float32 numbers.
    """

    offset: int
    size: int
    kind: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class PackedModel:
    """A packed file in memory.

    Attributes:
        data: The whole file, uint8.
        tensors: Entries by name; ``head`` is missing when the embedding serves as head.
    """

    config: DecoderConfig
    dtype: str
    data: Bytes
    tensors: dict[str, Entry]

    def address(self, name: str) -> int:
        """Address of a tensor in memory, 0 if the model does not have it."""
        entry = self.tensors.get(name)
        return 0 if entry is None else int(self.data.ctypes.data) + entry.offset

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.size for entry in self.tensors.values())


def open_packed(path: str | os.PathLike[str]) -> PackedModel:
    """Map a packed file, or read it into huge pages where the system has them.

    A forward pass reads all weights once, and with small pages spends a tenth of its time on looking up
    where they are.

    Raises:
        BadInput: if it is missing, not a packed file, truncated, or of another version.
    """
    try:
        data: Bytes = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read the packed model {path}: {error}") from error
    return dataclasses.replace(_read_index(data, str(path)), data=in_huge_pages(data))


def in_huge_pages(data: Bytes) -> Bytes:
    """The same bytes in huge pages where the system has them and there is room, else ``data`` itself."""
    return data if data.size > _room_for_copies() else _copy_to_huge_pages(data)


def _room_for_copies() -> int:
    """Bytes that weights may take besides the file: a quarter of the free memory; 0 without huge pages."""
    try:
        if "never" in re.findall(r"\[(\w+)\]", HUGE_PAGES_SETTING.read_text()):
            return 0
        free = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return 0
    return int(free.group(1)) * 1024 // 4 if free and hasattr(mmap, "MADV_HUGEPAGE") else 0


def _copy_to_huge_pages(data: Bytes) -> Bytes:
    # Private memory: what could be shared with other processes gets small pages.
    memory = mmap.mmap(-1, data.size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    room: Bytes = np.frombuffer(memory, dtype=np.uint8)
    first = -room.ctypes.data % HUGE_PAGE
    copy = room[first : first + data.size]
    with ThreadPoolExecutor() as threads:
        for start in range(0, data.size, COPY_BYTES):
            threads.submit(np.copyto, copy[start : start + COPY_BYTES], data[start : start + COPY_BYTES])
    copy.flags.writeable = False
    return copy


def _read_index(data: Bytes, name: str) -> PackedModel:
    prefix = bytes(data[: len(MAGIC) + 16])
    if len(prefix) < len(MAGIC) + 16 or not prefix.startswith(MAGIC):
        raise BadInput(f"{name} is not a packed model; delete it and let Ventris pack the weights again")
    offset, size = struct.unpack("<QQ", prefix[len(MAGIC) :])
    try:
        if offset == 0 or offset + size > data.size:
            raise ValueError("its index is missing")
        index: dict[str, Any] = json.loads(bytes(data[offset : offset + size]))
        if index["version"] != VERSION:
            raise BadInput(
                f"{name} was packed in version {index['version']} of the format, this Ventris reads "
                f"version {VERSION}; delete it and let Ventris pack the weights again"
            )
        tensors = {key: Entry(**entry) for key, entry in index["tensors"].items()}
        config = _config_from(index["config"])
        if any(entry.offset + entry.size > offset for entry in tensors.values()):
            raise ValueError("a tensor lies outside")
        return PackedModel(config, str(index["dtype"]), data, tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{name} is a damaged packed model ({error}); delete it and let Ventris pack the weights again"
        ) from error


def _config_from(fields: dict[str, Any]) -> DecoderConfig:
    scaling = _tuples(fields["rope_scaling"])
    return DecoderConfig(**{**_tuples(fields), "rope_scaling": RopeScaling(**scaling)})


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples; the configuration has no lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}


def pack(
    config: DecoderConfig,
    weights: Weights,
    dtype: str,
    path: str | os.PathLike[str],
    progress: Progress | None = None,
) -> Path:
    """Write the packed file of a model; a file of that name is replaced only by a complete one.

    Args:
        config: Sizes and switches.
        weights: Weights under their names in a transformers checkpoint.
        dtype: "float32", "bfloat16", "int8" or "int4". The last two take blocks as they are stored, and
            round plain matrices to blocks (4 bits in layers, 8 in the embedding and the head, or 8
            throughout). A matrix whose columns do not divide into blocks becomes bfloat16.
        path: The file.
        progress: Called after each tensor.

    Raises:
        BadInput: if a weight is missing or has another shape than the sizes say.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            _write(file, config, weights, dtype, progress)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write(
    file: BinaryIO, config: DecoderConfig, weights: Weights, dtype: str, progress: Progress | None
) -> None:
    if dtype not in DTYPES:
        raise BadInput(f"unknown dtype {dtype!r} for the native runtime; choose one of {', '.join(DTYPES)}")
    _check(config)
    prefix = len(MAGIC) + 16
    file.write(b"\0" * prefix)
    tensors: dict[str, dict[str, int | str]] = {}
    jobs = list(_Packer(config, weights, dtype).jobs())
    for done, (name, make) in enumerate(jobs, start=1):
        made = make()
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        offset = file.tell()
        file.write(made.data.data)
        tensors[name] = dataclasses.asdict(
            Entry(offset, made.data.nbytes, made.kind, made.rows, made.columns)
        )
        if progress is not None:
            progress(done, len(jobs))
    # Kernels prefetch a little past the end of a matrix; keep that inside the file.
    file.write(b"\0" * 4096)
    index = {
        "version": VERSION,
        "dtype": dtype,
        "config": dataclasses.asdict(config),
        "tensors": tensors,
    }
    offset = file.tell()
    text = json.dumps(index).encode()
    file.write(text)
    file.seek(0)
    file.write(MAGIC + struct.pack("<QQ", offset, len(text)))


def _check(config: DecoderConfig) -> None:
    rotary_dim = config.rotary_dim or config.head_dim
    if config.head_dim % 2 or rotary_dim % 2 or config.num_heads % config.num_kv_heads:
        raise BadInput(
            f"the native runtime needs even head sizes and whole groups of heads, not head_dim "
            f"{config.head_dim}, rotary_dim {rotary_dim}, {config.num_heads} heads over {config.num_kv_heads}"
        )


@dataclass(frozen=True, slots=True)
class _Made:
    """A packed tensor."""

    data: Bytes
    kind: str
    rows: int
    columns: int


_Job = tuple[str, Callable[[], _Made]]


class _Packer:
    """Packs the weights of one model, tensor by tensor."""

    def __init__(self, config: DecoderConfig, weights: Weights, dtype: str) -> None:
        self.config = config
        self.weights = weights
        self.dtype = dtype

    def jobs(self) -> Iterator[_Job]:
        """Name and maker of every tensor of the file."""
        config = self.config
        if not config.borrowed_embedding:
            yield (
                "embedding",
                lambda: self._matrix(["model.embed_tokens"], [config.vocab_size], config.hidden_size, 8),
            )
        for layer in range(config.num_layers):
            yield from self._layer(layer)
        yield "final_norm", lambda: self._norm("model.norm.weight", config.hidden_size)
        if not config.tied_head:
            scored = config.head_size or config.vocab_size
            yield "head", lambda: self._matrix(["lm_head"], [scored], config.hidden_size, 8)

    def _layer(self, layer: int) -> Iterator[_Job]:
        config = self.config
        source, target = f"model.layers.{layer}", f"layers.{layer}"
        attention, mlp = f"{source}.self_attn", f"{source}.mlp"
        hidden, wide = config.hidden_size, config.intermediate_size
        read = 2 * hidden if config.token_beside_hidden else hidden
        queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        projections = [f"{attention}.{name}_proj" for name in "qkv"]
        gate_up = [f"{mlp}.gate_proj", f"{mlp}.up_proj"]

        yield f"{target}.query_key_value", lambda: self._matrix(projections, [queries, keys, keys], read)
        if config.qkv_bias:
            yield f"{target}.query_key_value.bias", lambda: self._bias(projections, [queries, keys, keys])
        yield f"{target}.output", lambda: self._matrix([f"{attention}.o_proj"], [hidden], queries)
        if config.output_bias:
            yield f"{target}.output.bias", lambda: self._bias([f"{attention}.o_proj"], [hidden])
        if config.cross_attention:
            yield from self._cross_attention(f"{source}.cross_attn", f"{target}.cross", queries)
        yield f"{target}.gate_up", lambda: self._matrix(gate_up, [wide, wide], hidden, interleave=True)
        yield f"{target}.down", lambda: self._matrix([f"{mlp}.down_proj"], [hidden], wide)
        if config.mlp_bias:
            yield f"{target}.gate_up.bias", lambda: self._bias(gate_up, [wide, wide], interleave=True)
            yield f"{target}.down.bias", lambda: self._bias([f"{mlp}.down_proj"], [hidden])
        if config.qk_norm:
            yield f"{target}.query_norm", lambda: self._norm(f"{attention}.q_norm.weight", config.head_dim)
            yield f"{target}.key_norm", lambda: self._norm(f"{attention}.k_norm.weight", config.head_dim)
        for name, weight in self._layer_norms():
            yield f"{target}.{name}", lambda weight=weight: self._norm(f"{source}.{weight}.weight", hidden)  # type: ignore[misc]

    def _cross_attention(self, source: str, target: str, queries: int) -> Iterator[_Job]:
        config, hidden = self.config, self.config.hidden_size
        query, output = f"{source}.q_proj", f"{source}.o_proj"
        yield f"{target}_query", lambda: self._matrix([query], [queries], hidden)
        if config.qkv_bias:
            yield f"{target}_query.bias", lambda: self._bias([query], [queries])
        yield f"{target}_output", lambda: self._matrix([output], [hidden], queries)
        if config.output_bias:
            yield f"{target}_output.bias", lambda: self._bias([output], [hidden])

    def _layer_norms(self) -> list[tuple[str, str]]:
        """Norms of a layer, by their name here and in a checkpoint."""
        if self.config.post_norms:
            return [
                ("input_norm", "input_layernorm"),
                ("attention_output_norm", "post_attention_layernorm"),
                ("feed_forward_norm", "pre_feedforward_layernorm"),
                ("feed_forward_output_norm", "post_feedforward_layernorm"),
            ]
        norms = [("input_norm", "input_layernorm"), ("feed_forward_norm", "post_attention_layernorm")]
        if self.config.token_beside_hidden:
            norms[0] = ("input_norm", "hidden_norm")
            norms.append(("token_norm", "input_layernorm"))
        if self.config.cross_attention:
            norms.append(("cross_norm", "cross_attention_layernorm"))
        return norms

    def _get(self, name: str, shape: tuple[int, ...]) -> Weight:
        if name not in self.weights:
            raise BadInput(f"the checkpoint has no weight {name}")
        weight = self.weights[name]
        if tuple(weight.shape) != shape:
            raise BadInput(
                f"the weight {name} has shape {tuple(weight.shape)}, the configuration says {shape}"
            )
        return weight

    def _vector(self, name: str, size: int) -> Tensor:
        return dense(self._get(name, (size,))).contiguous()

    def _norm(self, name: str, size: int) -> _Made:
        weight = self._vector(name, size)
        return _vector_made(1.0 + weight if self.config.norm_plus_one else weight)

    def _bias(self, names: list[str], rows: list[int], interleave: bool = False) -> _Made:
        parts = [self._vector(f"{name}.bias", count) for name, count in zip(names, rows, strict=True)]
        # A bias is a matrix of one column as far as the order of rows goes.
        return _vector_made(_join([part[:, None] for part in parts], interleave)[:, 0])

    def _matrix(
        self, names: list[str], rows: list[int], columns: int, plain_bits: int = 4, interleave: bool = False
    ) -> _Made:
        """Pack matrices that share their input, below each other or (gate and up) panel by panel in turn."""
        parts = [
            self._get(f"{name}.weight", (count, columns)) for name, count in zip(names, rows, strict=True)
        ]
        kind = self._kind(parts, columns, plain_bits)
        data = pack_matrix(parts, kind, interleave)
        padded = [-(-count // PANEL_ROWS) * PANEL_ROWS if interleave else count for count in rows]
        return _Made(data, kind, sum(padded), columns)

    def _kind(self, parts: list[Weight], columns: int, plain_bits: int) -> str:
        if self.dtype in ("float32", "bfloat16"):
            return self.dtype
        if columns % BLOCK:
            return "bfloat16"
        if self.dtype == "int8":
            return "int8"
        bits = [part.bits if isinstance(part, QuantizedMatrix) else plain_bits for part in parts]
        return "int8" if max(bits) > 4 else "int4"


def pack_matrix(parts: Sequence[Weight], kind: str, interleave: bool = False) -> Bytes:
    """Matrices of equal width in the layout of ``panels.h``.

    Args:
        parts: Each ``[rows, columns]``; below each other, or panels of 16 rows of each in turn.
        kind: "float32", "bfloat16", "int8" or "int4"; the last two need whole blocks of 32 columns.
    """
    if kind in ("int8", "int4"):
        matrices = [_blocks(part, 8 if kind == "int8" else 4) for part in parts]
        levels = _join([matrix.levels for matrix in matrices], interleave)
        scales = _join([matrix.scales for matrix in matrices], interleave)
        offsets = _join([matrix.offsets for matrix in matrices], interleave)
        return _pack_blocks(levels, scales, offsets, kind)
    return _pack_dense(_join([dense(part) for part in parts], interleave), kind)


def pack_vector(values: Tensor) -> Bytes:
    """A float32 vector, padded so that a kernel may read whole vectors of 16."""
    return _bytes(torch.nn.functional.pad(values, (0, -len(values) % PANEL_ROWS)))


def _vector_made(values: Tensor) -> _Made:
    return _Made(pack_vector(values), "vector", len(values), 1)


def _blocks(weight: Weight, bits: int) -> QuantizedMatrix:
    """A weight in blocks of at most ``bits`` bits; narrower levels mean the same numbers in wider ones."""
    return weight if isinstance(weight, QuantizedMatrix) else quantize(weight, bits)


def _pad_rows(matrix: Tensor) -> Tensor:
    return torch.nn.functional.pad(matrix, (0, 0, 0, -len(matrix) % PANEL_ROWS))


def _join(parts: list[Tensor], interleave: bool) -> Tensor:
    """The parts below each other, or panels of 16 rows of each in turn; padded to whole panels."""
    if not interleave:
        return _pad_rows(torch.cat(parts))
    panels = [_pad_rows(part).view(-1, PANEL_ROWS, part.shape[1]) for part in parts]
    return torch.stack(panels, dim=1).flatten(0, 2)


def _pack_dense(matrix: Tensor, kind: str) -> Bytes:
    """To float32 ``[panels, columns, 16]`` or bfloat16 ``[panels, columns / 2, 16, 2]``."""
    panels = matrix.view(-1, PANEL_ROWS, matrix.shape[1])
    if kind == "float32":
        return _bytes(panels.transpose(1, 2))
    even = torch.nn.functional.pad(panels, (0, matrix.shape[1] % 2)).to(torch.bfloat16)
    return _bytes(even.view(len(panels), PANEL_ROWS, -1, 2).transpose(1, 2))


def _pack_blocks(levels: Tensor, scales: Tensor, offsets: Tensor, kind: str) -> Bytes:
    """To uint8 ``[panels, columns / 32, 576 or 320]``: levels, then 16 scales, then 16 offsets."""
    blocks = levels.shape[1] // BLOCK
    lanes = levels.view(-1, PANEL_ROWS, blocks, BLOCK // 4, 4)
    if kind == "int4":
        halves = levels.view(-1, PANEL_ROWS, blocks, BLOCK // 8, 2, 4)
        lanes = halves[..., 0, :] | halves[..., 1, :] << 4
    # Four bytes of one row side by side, rows next to each other.
    parts = [lanes.permute(0, 2, 3, 1, 4).flatten(2)]
    for ends in (scales, offsets):
        by_block = ends.view(-1, PANEL_ROWS, blocks).transpose(1, 2)
        parts.append(by_block.contiguous().view(torch.uint8))
    return _bytes(torch.cat(parts, dim=2))


def _bytes(tensor: Tensor) -> Bytes:
    data: Bytes = tensor.contiguous().view(torch.uint8).numpy()
    return data
