"""Fast answers about one row of logits."""

from __future__ import annotations

import ctypes
from functools import cache

from ventris.engine import sampling
from ventris.engine.sampling import Row
from ventris.models.native.build import NativeUnavailable, load_library


def most_probable(row: Row, count: int) -> list[tuple[int, float]]:
    """The ``count`` most probable tokens with their log-probabilities, best first, equals by token id.

    As :func:`ventris.engine.sampling.most_probable`, in a quarter of the time on a float32 row ``[vocab]``.
    """
    if row.dtype != "float32" or not row.flags.c_contiguous:
        return sampling.most_probable(row, count)
    try:
        library = load_library()
    except NativeUnavailable:
        return sampling.most_probable(row, count)
    count = min(count, row.size)
    # Plain C arrays: between two steps everything is out of the processor's caches, and tensors touch more.
    values_type, tokens_type = _result_types(count)
    values, tokens = values_type(), tokens_type()
    log_total = library.ventris_top_k(row.ctypes.data, row.size, count, values, tokens)
    return [(token, value - log_total) for token, value in zip(tokens, values, strict=True)]


@cache
def _result_types(count: int) -> tuple[type, type]:
    return ctypes.c_float * count, ctypes.c_int64 * count
