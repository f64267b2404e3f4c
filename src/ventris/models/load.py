"""From a name to a decoder that runs: choose the number format and the runtime, pack, open."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from ventris.engine.errors import BadInput
from ventris.models.cache_folder import Progress, written_whole
from ventris.models.config import LONGEST_CONTEXT, DecoderConfig
from ventris.models.source import ModelSource, resolve
from ventris.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ventris.engine.target import Target
    from ventris.models.split.plan import Split

__all__ = ["DTYPES", "KERNELS", "ModelSource", "load_decoder", "resolve"]

logger = logging.getLogger("ventris")

DType = Literal["auto", "int4", "int4-a8", "int8", "int8-a8", "bfloat16", "float32"]
Kernels = Literal["auto", "native", "torch", "graphs"]
DTYPES = ("auto", "int4", "int4-a8", "int8", "int8-a8", "bfloat16", "float32")
KERNELS = ("auto", "native", "torch", "graphs")
_TORCH_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_STORED_BITS = {"int4": 4, "int8": 8}
_NARROW = "-a8"
"""Suffix of formats whose activations are rounded to 8 bits, as llama.cpp does; 16 otherwise."""


def load_decoder(
    name: str | Path,
    dtype: DType = "auto",
    kernels: Kernels = "auto",
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    context_length: int | None = None,
    split: Split | None = None,
) -> tuple[Target, Tokenizer, ModelSource]:
    """Load a model for decoding.

    Args:
        name: As in :func:`resolve`.
        dtype: Format of the weights. ``auto`` keeps a 4- or 8-bit checkpoint as it is and otherwise takes
            bfloat16 where the processor computes with it, else float32; on a GPU bfloat16. ``int4-a8`` and
            ``int8-a8`` also round activations to 8 bits in blocks of 32, as llama.cpp does: faster for
            several nodes at a time, less faithful.
        kernels: ``native`` (CPU only), ``torch``, or ``graphs`` (torch with static shapes and CUDA graphs for
            one request at a time; GPU only); ``auto`` is native with torch as the fallback on a CPU, torch on
            a GPU. The torch runtime computes a 4- or 8-bit checkpoint with the same numbers in float32.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1`` …
        threads: Threads of the CPU runtime; ``None`` for its own choice.
        progress: Told about downloads and packing, and warned when the cache cannot be used.
        context_length: Longest text in tokens; ``None`` for that of the checkpoint. A checkpoint with
            longrope computes texts up to its trained context as transformers does if this is no larger
            than the trained context (see :mod:`ventris.models.rope`).
        split: Divide the layers between this process and another; by the torch runtime.

    Raises:
        BadInput: if an argument is wrong or the model cannot be used.
        StageLost: if the other process does not start.
        ventris.models.native.NativeUnavailable: if ``kernels="native"`` and it cannot run here.
    """
    place = _checked(dtype, kernels, device, threads)
    if context_length is not None and not 1 <= context_length <= LONGEST_CONTEXT:
        raise BadInput(f"context_length must be 1 to {LONGEST_CONTEXT}, not {context_length}")
    source = resolve(name, progress)
    config, tokenizer = source.config, source.tokenizer
    if split is not None:
        _check_splits(source, kernels)
    if config is None:
        return _transformers(source, dtype, kernels, place, context_length), tokenizer, source
    chosen = _stored_dtype(source, place) if dtype == "auto" else dtype
    if split is None and place.type == "cpu" and kernels in ("auto", "native"):
        from ventris.models.native import NativeUnavailable

        try:
            return _native(source, config, chosen, threads, progress, context_length), tokenizer, source
        except NativeUnavailable as reason:
            if kernels == "native":
                raise
            _warn(progress, f"the native kernels cannot be used ({reason}); going on with torch, slower")
    if context_length is not None:
        config = config.with_context_length(context_length)
    number = _torch_dtype(source, chosen, dtype)
    if threads is not None and place.type == "cpu":
        torch.set_num_threads(threads)
    if split is not None:
        from ventris.models.split.start import load_split

        return load_split(source, config, number, place, threads, split, progress), tokenizer, source
    from ventris.models.torch_decoder import TorchDecoder

    decoder = TorchDecoder(config, source.weights, number, place)
    if kernels == "graphs":
        from ventris.models.cuda_graphs import GraphedDecoder

        return GraphedDecoder(decoder), tokenizer, source
    return decoder, tokenizer, source


def _checked(dtype: str, kernels: str, device: str, threads: int | None) -> torch.device:
    if dtype not in DTYPES:
        raise BadInput(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    if kernels not in KERNELS:
        raise BadInput(f"unknown kernels {kernels!r}; choose one of {', '.join(KERNELS)}")
    if threads is not None and threads < 1:
        raise BadInput(f"threads must be 1 or more, not {threads}")
    place = torch.device("cpu") if (device, kernels) == ("auto", "native") else place_of(device)
    if kernels == "graphs" and place.type != "cuda":
        raise BadInput("kernels graphs needs a GPU; choose --device cuda, or kernels auto")
    if kernels == "native" and place.type != "cpu":
        raise BadInput(f"the native kernels run on the CPU only, not on {device!r}; choose kernels torch")
    return place


def place_of(device: str) -> torch.device:
    """The device that is meant by ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        BadInput: if there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise BadInput(f"unknown device {device!r}; choose auto, cpu, cuda or cuda:N") from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"there is no GPU {device!r} here; choose --device cpu")
    return place


def _stored_dtype(source: ModelSource, place: torch.device) -> str:
    """The format that loses nothing of the checkpoint and runs fast at ``place``."""
    if place.type != "cpu":
        return "bfloat16"
    if source.bits in (4, 8):
        return f"int{source.bits}"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"


def _native(
    source: ModelSource,
    config: DecoderConfig,
    dtype: str,
    threads: int | None,
    progress: Progress | None,
    context_length: int | None,
) -> Target:
    from ventris.models.native import NativeDecoder
    from ventris.models.native.build import load_library
    from ventris.models.native.pack import VERSION, pack

    load_library()  # first, so that nothing is packed for kernels that cannot be had
    activation_bits = 8 if dtype.endswith(_NARROW) else 16
    dtype = dtype.removesuffix(_NARROW)
    packed = source.cache.weights_file(dtype, VERSION)
    if packed.is_file():
        try:
            return NativeDecoder.open(packed, threads, context_length, activation_bits)
        except BadInput as damage:
            _warn(progress, f"packing {source.name} anew: {damage}")

    def tell(done: int, total: int) -> None:
        if progress:
            progress(f"packing {source.name} as {dtype}", done / total)

    try:
        with written_whole(packed) as temporary:
            pack(config, source.weights, dtype, temporary, progress=tell)
        return NativeDecoder.open(packed, threads, context_length, activation_bits)
    except OSError as error:
        _warn(progress, f"cannot keep the packed weights of {source.name} ({error}); each start will be slow")
    try:
        return NativeDecoder.from_weights(
            config, source.weights, dtype, threads, activation_bits, context_length
        )
    except OSError as error:
        raise BadInput(
            f"there is no room for the packed weights of {source.name} ({error}); free some, "
            "set VENTRIS_CACHE or TMPDIR to another disk, or choose kernels torch"
        ) from None


def _check_splits(source: ModelSource, kernels: str) -> None:
    if kernels in ("native", "graphs"):
        raise BadInput(f"kernels {kernels} run a model in one process; for two stages choose kernels torch")
    if source.config is None:
        raise BadInput(
            f"{source.name} can only be run by transformers, which takes a model whole; leave out stages"
        )


def _torch_dtype(source: ModelSource, dtype: str, asked: str) -> torch.dtype:
    """The format in which torch computes what is stored, or wanted, as ``dtype``."""
    dtype = dtype.removesuffix(_NARROW)
    if dtype in _STORED_BITS:
        if asked != "auto" and source.bits != _STORED_BITS[dtype]:
            raise BadInput(
                f"only the native kernels can round {source.name} to {dtype}; choose bfloat16 or float32"
            )
        dtype = "float32"
    return _TORCH_DTYPES[dtype]


def _transformers(
    source: ModelSource, dtype: str, kernels: str, place: torch.device, context_length: int | None
) -> Target:
    if kernels == "native" or dtype.removesuffix(_NARROW) in _STORED_BITS:
        raise BadInput(
            f"{source.name} is of a kind that only transformers can run; choose kernels torch and "
            "dtype auto, bfloat16 or float32"
        )
    from ventris.models.transformers_adapter import TransformersTarget

    target = TransformersTarget.load(str(source.path), dtype=dtype, device=str(place))
    source.tokenizer.limit_ids(target.vocab_size)
    if context_length is not None:
        if context_length > target.context_length:
            raise BadInput(
                f"{source.name} takes texts of {target.context_length} tokens; context_length cannot be "
                f"{context_length}"
            )
        target.context_length = context_length
    return target


def _warn(progress: Progress | None, message: str) -> None:
    logger.warning(message)
    if progress:
        progress(message, None)
