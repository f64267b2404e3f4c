"""The native CPU runtime: packed weights, own kernels, results that do not depend on the batch."""

from ventris.models.native.build import NativeUnavailable
from ventris.models.native.decoder import NativeDecoder
from ventris.models.native.pack import PackedModel, open_packed, pack
from ventris.models.native.rows import most_probable

__all__ = ["NativeDecoder", "NativeUnavailable", "PackedModel", "most_probable", "open_packed", "pack"]
