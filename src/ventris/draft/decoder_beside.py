"""A drafter's own few layers as a decoder that runs where the target does and reads its embedding."""

from __future__ import annotations

from dataclasses import replace

from ventris.draft.target_sketch import embedding_rows
from ventris.engine.errors import BadInput
from ventris.engine.target import Target
from ventris.models.config import DecoderConfig
from ventris.models.stages import drafting_dtype, runs_natively, threads_of
from ventris.models.torch_decoder import TorchDecoder
from ventris.models.weights import BLOCK, Weights


def decoder_beside(target: Target, config: DecoderConfig, weights: Weights) -> Target:
    """A decoder with a borrowed embedding: native beside a native target, else in torch.

    On the native runtime its matrices are 8-bit: that is half the bytes of bfloat16, and drafts need no more.

    Args:
        target: Lends its embedding, its context length and its threads.
        config: Sizes and switches, with ``borrowed_embedding``.
        weights: By the names of a transformers checkpoint.
    """
    config = replace(config, vocab_size=target.vocab_size, context_length=target.context_length)
    if runs_natively(target):
        from ventris.models.native import NativeDecoder

        if isinstance(target, NativeDecoder):
            config = replace(config, embedding_scale=target.config.embedding_scale)
            threads = threads_of(target)
            return NativeDecoder.from_weights(
                config, weights, "int8", threads, activation_bits=8, lender=target
            )
    dtype = drafting_dtype(target.device)
    # These rows are scaled already, where the family scales its embeddings.
    embedding = embedding_rows(target, range(target.vocab_size)).to(dtype)
    return TorchDecoder(replace(config, embedding_scale=1.0), weights, dtype, target.device, embedding)


def whole_decoder_beside(target: Target, config: DecoderConfig, weights: Weights) -> Target:
    """A small decoder with an embedding of its own, run where the target runs: natively, else in torch.

    Args:
        weights: By the names of a transformers checkpoint.
    """
    if runs_natively(target) and all(size % BLOCK == 0 for size in (config.hidden_size, config.head_dim)):
        from ventris.models.native import NativeDecoder

        return NativeDecoder.from_weights(config, weights, "int8", threads_of(target), activation_bits=8)
    return TorchDecoder(config, weights, drafting_dtype(target.device), target.device)


def config_of(target: Target) -> DecoderConfig:
    """Sizes and switches of a target.

    Raises:
        BadInput: for one that only transformers can run.
    """
    config = getattr(target, "config", None)
    if not isinstance(config, DecoderConfig):
        raise BadInput("this target can only be run by transformers; its layers need the native families")
    return config
