"""The container: blocks are read without loss, and whatever is wrong with a file is said in one line."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tiny_models import write_gguf

from ventris.engine.errors import BadInput
from ventris.models.gguf import GgufFile
from ventris.models.weights import QuantizedMatrix


def write_matrix(path: Path, kind: str, rows: int = 3, columns: int = 256) -> np.ndarray:
    """A file with one matrix ``w``, and gguf's own reading of it, float32 ``[rows, columns]``."""
    numbers = np.random.default_rng(1).normal(size=(rows, columns)).astype(np.float32)
    stored = gguf.GGMLQuantizationType[kind]
    try:
        data = gguf.quants.quantize(numbers, stored)
    except NotImplementedError:  # gguf cannot write the format, so take random blocks
        block, size = gguf.GGML_QUANT_SIZES[stored]
        data = np.random.default_rng(2).integers(0, 60, (rows, columns // block * size), dtype=np.uint8)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("w", data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf.quants.dequantize(data, stored)


@pytest.mark.parametrize(("kind", "bits"), [("Q4_0", 4), ("Q4_1", 4), ("Q8_0", 8)])
def test_blocks_keep_every_bit(tmp_path: Path, kind: str, bits: int) -> None:
    expected = write_matrix(tmp_path / "m.gguf", kind)
    matrix = GgufFile(tmp_path / "m.gguf").read("w")
    assert isinstance(matrix, QuantizedMatrix)
    assert matrix.bits == bits
    assert torch.equal(matrix.dequantize(), torch.from_numpy(expected))


@pytest.mark.parametrize("kind", ["Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "Q2_K", "Q3_K", "IQ4_NL"])
def test_other_formats_become_numbers(tmp_path: Path, kind: str) -> None:
    expected = write_matrix(tmp_path / "m.gguf", kind)
    tensor = GgufFile(tmp_path / "m.gguf").read("w")
    assert isinstance(tensor, torch.Tensor)
    assert torch.equal(tensor, torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("kind", "dtype"), [("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16)]
)
def test_plain_formats_keep_their_type(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    expected = write_matrix(tmp_path / "m.gguf", kind)
    tensor = GgufFile(tmp_path / "m.gguf").read("w")
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == dtype
    assert torch.equal(tensor.float(), torch.from_numpy(expected))


def test_offsets_too_large_for_float16_are_kept_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_matrix(path, "Q8_0", rows=1, columns=32)
    data = bytearray(path.read_bytes())
    at = GgufFile(path).tensors["w"].offset
    data[at : at + 2] = struct.pack("<e", 1000.0)  # 128 times that is more than float16 holds
    path.write_bytes(data)
    tensor = GgufFile(path).read("w")
    assert isinstance(tensor, torch.Tensor)
    assert tensor.isfinite().all()


def test_scales_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_matrix(path, "Q4_1", rows=1, columns=32)
    data = bytearray(path.read_bytes())
    at = GgufFile(path).tensors["w"].offset
    data[at : at + 2] = struct.pack("<e", float("nan"))
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"m\.gguf .*scales"):
        GgufFile(path).read("w")


def test_metadata_come_with_their_types(tmp_path: Path) -> None:
    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_bool("x.flag", True)
        writer.add_string("x.text", "ä€")
        writer.add_array("x.list", [1.5, 2.5])
        writer.add_uint64("x.big", 2**40)

    metadata = GgufFile(write_gguf(tmp_path / "m.gguf", edit=edit)).metadata
    assert metadata["x.flag"] is True
    assert metadata["x.text"] == "ä€"
    assert metadata["x.list"].tolist() == [1.5, 2.5]
    assert metadata["x.big"] == 2**40


def header(*parts: bytes) -> bytes:
    return b"GGUF" + struct.pack("<I", 3) + b"".join(parts)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


COUNTS = struct.Struct("<QQ")
ABSURD = {
    "empty": b"",
    "other magic": b"GGML" + bytes(100),
    "big-endian": b"GGUF" + struct.pack(">I", 3) + bytes(100),
    "magic only": b"GGUF",
    "2**60 tensors": header(COUNTS.pack(2**60, 0), bytes(100)),
    "2**60 entries": header(COUNTS.pack(0, 2**60), bytes(100)),
    "endless key": header(COUNTS.pack(0, 1), struct.pack("<Q", 2**63), bytes(50)),
    "endless text": header(COUNTS.pack(0, 1), text(b"k"), struct.pack("<IQ", 8, 2**63), bytes(50)),
    "endless numbers": header(COUNTS.pack(0, 1), text(b"k"), struct.pack("<IIQ", 9, 4, 2**61), bytes(50)),
    "endless texts": header(COUNTS.pack(0, 1), text(b"k"), struct.pack("<IIQ", 9, 8, 2**61), bytes(50)),
    "lists of lists": header(
        COUNTS.pack(0, 1), text(b"k"), struct.pack("<I", 9), struct.pack("<IQ", 9, 1) * 9
    ),
    "unknown type": header(COUNTS.pack(0, 1), text(b"k"), struct.pack("<I", 77), bytes(50)),
    "key twice": header(COUNTS.pack(0, 2), (text(b"k") + struct.pack("<II", 4, 1)) * 2),
    "no UTF-8": header(COUNTS.pack(0, 1), text(b"\xff"), struct.pack("<II", 4, 1), bytes(50)),
    "5 dimensions": header(COUNTS.pack(1, 0), text(b"w"), struct.pack("<I", 5), bytes(90)),
    "0 columns": header(COUNTS.pack(1, 0), text(b"w"), struct.pack("<IQIQ", 1, 0, 0, 0), bytes(90)),
    "half a block": header(COUNTS.pack(1, 0), text(b"w"), struct.pack("<IQIQ", 1, 33, 3, 0), bytes(90)),
    "tensor type 99": header(COUNTS.pack(1, 0), text(b"w"), struct.pack("<IQIQ", 1, 32, 99, 0), bytes(90)),
    "offset outside": header(COUNTS.pack(1, 0), text(b"w"), struct.pack("<IQIQ", 1, 2, 0, 2**62), bytes(90)),
    "size overflow": header(
        COUNTS.pack(1, 0), text(b"w"), struct.pack("<IQQIQ", 2, 2**63, 2**63, 0, 0), bytes(90)
    ),
    "name twice": header(COUNTS.pack(2, 0), (text(b"w") + struct.pack("<IQIQ", 1, 2, 0, 0)) * 2, bytes(90)),
}


@pytest.mark.parametrize("content", ABSURD.values(), ids=ABSURD)
def test_absurd_headers_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"broken\.gguf") as caught:
        GgufFile(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.gguf"):
        GgufFile(tmp_path / "none.gguf")


def test_a_file_that_shrinks_after_opening_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    file = GgufFile(path)
    path.write_bytes(path.read_bytes()[:-2000])
    last = max(file.tensors.values(), key=lambda entry: entry.offset)
    with pytest.raises(BadInput, match="cut off"):
        file.read(last.name)
