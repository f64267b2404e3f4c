"""The GGUF container: metadata and a table of tensors, read strictly and lazily.

The ``gguf`` package's reader builds an object for every string of the vocabulary (2.5 s for 49,000 tokens)
and trusts every count and offset it finds. This parser takes a few hundredths of a second and checks each of
them against the size of the file; the package is used only for the arithmetic of the many block formats.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.models.weights import BLOCK, QuantizedMatrix, Weight

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4
_MAX_NESTING = 3
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    _BOOL: np.dtype("?"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
_PLAIN: dict[str, tuple[np.dtype[Any], torch.dtype | None]] = {
    "F32": (np.dtype("<f4"), None),
    "F16": (np.dtype("<f2"), None),
    "BF16": (np.dtype("<i2"), torch.bfloat16),
}
_UINT32 = struct.Struct("<I")
_UINT64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One row of the tensor table.

    Attributes:
        shape: As torch has it: rows first (GGUF stores the columns first).
        kind: Name of the storage format, such as ``Q4_1``.
        offset: Byte in the file where the data begin.
        size: Bytes of data.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int
    size: int


class GgufFile:
    """An opened GGUF file.

    Attributes:
        metadata: Values by key: ``int``, ``float``, ``bool``, ``str``, a list of strings, or a numpy array.
        tensors: The tensor table by name.

    Raises:
        BadInput: if the file is missing, truncated, or not a sound GGUF file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, TensorEntry] = {}
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                _Header(view, self).read()
        except UnicodeDecodeError:
            self.fail("a name or a text in its header is not UTF-8")
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot read {path}: {error}; give the path of a .gguf file") from None

    def fail(self, what: str) -> NoReturn:
        """Raise :class:`BadInput` about this file."""
        raise BadInput(
            f"{self.path.name} is no usable GGUF file: {what}; download it again or convert it anew"
        )

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """Metadata value of ``key``, checked to be of ``kind`` (``float`` takes whole numbers as well).

        Raises:
            BadInput: if it is of another kind, not finite, or missing without a default.
        """
        value = self.metadata.get(key)
        if value is None:
            if default is None:
                self.fail(f"the metadata entry {key} is missing")
            return default
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        wrong = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
        if wrong or (kind is float and not math.isfinite(value)):
            self.fail(f"the metadata entry {key} is not a proper {kind.__name__}")
        return value

    def read(self, name: str) -> Weight:
        """One tensor: Q4_0, Q4_1 and Q8_0 matrices in their blocks, everything else as numbers.

        F32, F16 and BF16 keep their type; all other formats become float32.

        Raises:
            BadInput: if the tensor is missing, truncated, not finite in its scales, or of a format that
                cannot be read.
        """
        entry = self.tensors.get(name)
        if entry is None:
            self.fail(f"the tensor {name} is missing")
        raw = self._bytes(entry)
        if entry.kind in _PLAIN:
            stored, view = _PLAIN[entry.kind]
            tensor = torch.from_numpy(raw.view(stored)).view(entry.shape)
            return tensor if view is None else tensor.view(view)
        rows = raw.reshape(math.prod(entry.shape[:-1]), -1)
        if entry.kind in _BLOCK_READERS and len(entry.shape) == 2:
            matrix = _BLOCK_READERS[entry.kind](rows)
            if not bool(torch.isfinite(matrix.scales).all()):
                self.fail(f"the tensor {name} has scales that are no numbers")
            if bool(torch.isfinite(matrix.offsets).all()):
                return matrix
        return self._dequantize(entry, rows)

    def _bytes(self, entry: TensorEntry) -> NDArray[np.uint8]:
        # A plain read, not a mapping: a file that shrinks meanwhile gives an error and not a crash.
        try:
            raw = np.fromfile(self.path, dtype=np.uint8, count=entry.size, offset=entry.offset)
        except OSError as error:
            raise BadInput(f"cannot read {self.path}: {error}; is the file still there?") from None
        if raw.size != entry.size:
            self.fail(f"the data of {entry.name} are cut off")
        return raw

    def _dequantize(self, entry: TensorEntry, rows: NDArray[np.uint8]) -> Tensor:
        import gguf

        try:
            with np.errstate(all="ignore"):  # what is no number in a damaged file stays no number
                numbers = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[entry.kind])
        except NotImplementedError:
            raise BadInput(
                f"{self.path.name} stores {entry.name} as {entry.kind}, which cannot be read; "
                "use a file in Q4_0, Q4_1, Q8_0, a K format, F16 or BF16"
            ) from None
        return torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.float32)).view(entry.shape)


class _Header:
    """Reads the head of the file from ``view`` into ``file``; every read is checked against the end."""

    def __init__(self, view: mmap.mmap, file: GgufFile) -> None:
        self.view = view
        self.file = file
        self.end = len(view)
        self.at = 0

    def take(self, size: int) -> int:
        """Move past ``size`` bytes and return where they begin."""
        start = self.at
        if size > self.end - start:
            self.file.fail("it ends in the middle of its header")
        self.at = start + size
        return start

    def uint32(self) -> int:
        return int(_UINT32.unpack_from(self.view, self.take(4))[0])

    def uint64(self) -> int:
        return int(_UINT64.unpack_from(self.view, self.take(8))[0])

    def string(self) -> str:
        size = self.uint64()
        start = self.take(size)
        return str(self.view[start : start + size], "utf-8")

    def read(self) -> None:
        if self.view[:4] != _MAGIC:
            self.file.fail("it does not begin with the letters GGUF")
        self.at = 4
        version = self.uint32()
        if version not in _VERSIONS:
            self.file.fail(f"it has format version {version}, and only 2 and 3 (little-endian) can be read")
        tensors, entries = self.uint64(), self.uint64()
        # The smallest table row takes 8 + 4 + 8 + 4 + 8 bytes, the smallest metadata entry 8 + 4 + 1.
        if tensors * 32 + entries * 13 > self.end - self.at:
            self.file.fail(f"it claims {tensors} tensors and {entries} metadata entries")
        for _ in range(entries):
            key = self.string()
            if key in self.file.metadata:
                self.file.fail(f"the metadata entry {key!r} appears twice")
            self.file.metadata[key] = self.value(self.uint32(), 0)
        self.table(tensors)

    def value(self, kind: int, depth: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(depth + 1)
        dtype = self.number_type(kind)
        start = self.take(dtype.itemsize)
        return np.frombuffer(self.view[start : self.at], dtype)[0].item()

    def array(self, depth: int) -> Any:
        kind, count = self.uint32(), self.uint64()
        if kind == _STRING:
            if count * 8 > self.end - self.at:
                self.file.fail(f"it claims a list of {count} strings")
            return self.strings(count)
        if kind == _ARRAY:
            if depth == _MAX_NESTING or count * 12 > self.end - self.at:
                self.file.fail("it nests lists too deeply")
            return [self.array(depth + 1) for _ in range(count)]
        dtype = self.number_type(kind)
        start = self.take(count * dtype.itemsize)
        return np.frombuffer(self.view[start : self.at], dtype)

    def strings(self, count: int) -> list[str]:
        # The hot loop: a vocabulary has up to 260,000 strings and as many merges.
        view, end, at, size_of = self.view, self.end, self.at, _UINT64.unpack_from
        strings = []
        for _ in range(count):
            if at + 8 > end:
                self.file.fail("it ends in the middle of a list")
            start = at + 8
            at = start + size_of(view, at)[0]
            if at > end:
                self.file.fail("it ends in the middle of a list")
            strings.append(str(view[start:at], "utf-8"))
        self.at = at
        return strings

    def number_type(self, kind: int) -> np.dtype[Any]:
        dtype = _NUMBERS.get(kind)
        if dtype is None:
            self.file.fail(f"it uses the unknown value type {kind}")
        return dtype

    def table(self, count: int) -> None:
        import gguf

        kinds = {kind.value: (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
        rows = [self.row(kinds) for _ in range(count)]
        alignment = self.file.get("general.alignment", int, 32)
        if alignment < 1 or alignment > self.end:
            self.file.fail(f"the alignment {alignment} makes no sense")
        base = -(-self.at // alignment) * alignment
        for entry in rows:
            offset = base + entry.offset
            if entry.offset % alignment or offset + entry.size > self.end:
                self.file.fail(f"the data of {entry.name!r} lie outside the file, which may be cut off")
            if entry.name in self.file.tensors:
                self.file.fail(f"the tensor {entry.name!r} appears twice")
            self.file.tensors[entry.name] = TensorEntry(
                entry.name, entry.shape, entry.kind, offset, entry.size
            )

    def row(self, kinds: dict[int, tuple[str, int, int]]) -> TensorEntry:
        name, dimensions = self.string(), self.uint32()
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            self.file.fail(f"the tensor {name!r} has {dimensions} dimensions")
        sizes = [self.uint64() for _ in range(dimensions)]
        number, offset = self.uint32(), self.uint64()
        if number not in kinds:
            self.file.fail(f"the tensor {name!r} has the unknown type {number}")
        kind, block, block_bytes = kinds[number]
        if 0 in sizes or sizes[0] % block:
            self.file.fail(f"the tensor {name!r} has the impossible shape {sizes} for {kind}")
        size = math.prod(sizes) // block * block_bytes
        return TensorEntry(name, tuple(reversed(sizes)), kind, offset, size)


def _float16(columns: NDArray[np.uint8]) -> Tensor:
    """Two bytes of every block, ``[rows, blocks, 2]``, as float16 ``[rows, blocks]``."""
    return torch.from_numpy(np.ascontiguousarray(columns).view("<f2")[..., 0])


def _nibbles(packed: NDArray[np.uint8]) -> Tensor:
    """Levels of 4-bit blocks, ``[rows, blocks, 16]`` bytes to ``[rows, columns]``.

    The low halves of the 16 bytes are columns 0..15 of the block, the high halves columns 16..31.
    """
    rows, blocks, _ = packed.shape
    levels = np.empty((rows, blocks, BLOCK), dtype=np.uint8)
    np.bitwise_and(packed, 15, out=levels[..., :16])
    np.right_shift(packed, 4, out=levels[..., 16:])
    return torch.from_numpy(levels.reshape(rows, blocks * BLOCK))


def _read_q4_0(rows: NDArray[np.uint8]) -> QuantizedMatrix:
    blocks = rows.reshape(rows.shape[0], -1, 18)
    scales = _float16(blocks[..., :2])
    return QuantizedMatrix(_nibbles(blocks[..., 2:]), scales, scales * -8, bits=4)


def _read_q4_1(rows: NDArray[np.uint8]) -> QuantizedMatrix:
    blocks = rows.reshape(rows.shape[0], -1, 20)
    scales, offsets = _float16(blocks[..., :2]), _float16(blocks[..., 2:4])
    return QuantizedMatrix(_nibbles(blocks[..., 4:]), scales, offsets, bits=4)


def _read_q8_0(rows: NDArray[np.uint8]) -> QuantizedMatrix:
    blocks = rows.reshape(rows.shape[0], -1, 34)
    scales = _float16(blocks[..., :2])
    # Flipping the sign bit of an int8 adds 128 to it, read as uint8.
    levels = (blocks[..., 2:] ^ 0x80).reshape(rows.shape[0], -1)
    return QuantizedMatrix(torch.from_numpy(levels), scales, scales * -128, bits=8)


_BLOCK_READERS = {"Q4_0": _read_q4_0, "Q4_1": _read_q4_1, "Q8_0": _read_q8_0}
