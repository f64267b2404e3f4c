"""Fast answers about one row of logits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ventris.models.native.build import NativeUnavailable, load_library


def argmax(row: Tensor) -> int:
    """Index of the largest number of a float32 CPU row ``[n]``; the first of equals."""
    try:
        library = load_library()
    except NativeUnavailable:
        return int(np.argmax(row.numpy()))
    row = row.contiguous()
    return int(library.ventris_argmax(row.data_ptr(), row.shape[0]))


def top_k(row: Tensor, k: int) -> tuple[Tensor, Tensor, float]:
    """The largest numbers of a float32 CPU row ``[n]``.

    Returns:
        Values float32 ``[k]`` in falling order, their indices int64 ``[k]`` (the smaller first among
        equals), and ``log(sum(exp(row)))``, which turns a value into a log-probability.
    """
    k = min(k, row.shape[0])
    try:
        library = load_library()
    except NativeUnavailable:
        indices = torch.argsort(row, descending=True, stable=True)[:k]
        return row[indices], indices, float(torch.logsumexp(row, 0))
    row = row.contiguous()
    values = torch.empty(k, dtype=torch.float32)
    indices = torch.empty(k, dtype=torch.int64)
    total = library.ventris_top_k(row.data_ptr(), row.shape[0], k, values.data_ptr(), indices.data_ptr())
    return values, indices, float(total)
