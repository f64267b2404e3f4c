"""Memory that the server no longer needs goes back to the system.

Caches of keys and values are blocks of all sizes that come and go. The C library of Linux (glibc) starts by
mapping each large block on its own, but for every one that is freed it raises the size from which it does so,
up to 32 MiB. From then on caches share heaps with small objects that outlive them: the heaps grow for as long
as new combinations of lengths come up, and half of them is holes.
"""

from __future__ import annotations

import ctypes
import platform

LARGE_BLOCK = 1024 * 1024
"""Bytes. Mapping a block and clearing its pages takes far less time than the step that uses it."""

KEPT_FREE = 8 * 1024 * 1024
"""Bytes at a heap's end that stay there when they are free, for what each step allocates anew."""

# From glibc's malloc.h; part of its binary interface.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def return_large_blocks() -> bool:
    """Have large blocks mapped on their own for good, in the whole process.

    Returns:
        False where the C library is another one; nothing is changed then.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT_FREE))
