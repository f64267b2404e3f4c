"""The native CPU runtime: packed weights, own kernels, results that do not depend on the batch."""

from ventris.models.native.build import NativeUnavailable
from ventris.models.native.decoder import NativeDecoder
from ventris.models.native.pack import PackedModel, open_packed, pack
from ventris.models.native.rows import argmax, top_k

__all__ = ["NativeDecoder", "NativeUnavailable", "PackedModel", "argmax", "open_packed", "pack", "top_k"]
