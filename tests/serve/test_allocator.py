"""Large blocks are mapped on their own, whatever was freed before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from ventris.serve.allocator import LARGE_BLOCK

SCRIPT = """
import ctypes, sys
from ventris.serve.allocator import return_large_blocks

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc.mallinfo2.restype = Counts

def mapped(size):
    before = libc.mallinfo2().hblks
    block = libc.malloc(size)
    after = libc.mallinfo2().hblks
    libc.free(block)
    return after - before

if sys.argv[1] == "yes":
    assert return_large_blocks()
mapped(30 << 20)
print(mapped(int(sys.argv[2])))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize(("called", "size", "mapped"), [
    ("no", 8 * LARGE_BLOCK, "0"),
    ("yes", 8 * LARGE_BLOCK, "1"),
    ("yes", LARGE_BLOCK // 2, "0"),
])  # fmt: skip
def test_a_large_block_is_mapped_even_after_larger_ones_were_freed(
    called: str, size: int, mapped: str
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, called, str(size)], capture_output=True, text=True, check=False
    )
    if "mallinfo2" in run.stderr:
        pytest.skip("this glibc cannot tell: it has no mallinfo2")
    assert run.stdout.strip() == mapped, run.stderr
