"""The structures of ``abi.h``, field by field."""

from __future__ import annotations

import ctypes

FORMS = {"plain": 0, "residual": 1, "halves": 2}
KINDS = {"float32": 0, "bfloat16": 1, "int8": 2, "int4": 3}
ACTIVATIONS = {"silu": 0, "gelu_tanh": 1, "gelu": 2}

OK, TOKEN_OUT_OF_RANGE, POSITION_OUT_OF_RANGE, MALFORMED_TREE, NODE_OUT_OF_RANGE = range(5)


class Matrix(ctypes.Structure):
    """``VentrisMatrix``: a packed matrix."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("kind", ctypes.c_int64),
        ("activation_bits", ctypes.c_int64),
    )


class Layer(ctypes.Structure):
    """``VentrisLayer``: matrices and norms of one layer."""

    _fields_ = (
        ("query_key_value", Matrix),
        ("output", Matrix),
        ("gate_up", Matrix),
        ("down", Matrix),
        ("cross_query", Matrix),
        ("cross_output", Matrix),
        ("input_norm", ctypes.c_void_p),
        ("attention_output_norm", ctypes.c_void_p),
        ("feed_forward_norm", ctypes.c_void_p),
        ("feed_forward_output_norm", ctypes.c_void_p),
        ("query_norm", ctypes.c_void_p),
        ("key_norm", ctypes.c_void_p),
        ("token_norm", ctypes.c_void_p),
        ("cross_norm", ctypes.c_void_p),
        ("window", ctypes.c_int64),
        ("rope_table", ctypes.c_int64),
    )


class Model(ctypes.Structure):
    """``VentrisModel``: sizes, switches and weights."""

    _fields_ = (
        ("vocab_size", ctypes.c_int64),
        ("hidden_size", ctypes.c_int64),
        ("intermediate_size", ctypes.c_int64),
        ("layer_count", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("kv_heads", ctypes.c_int64),
        ("head_dim", ctypes.c_int64),
        ("rotary_dim", ctypes.c_int64),
        ("context_length", ctypes.c_int64),
        ("activation", ctypes.c_int64),
        ("bfloat_cache", ctypes.c_int64),
        ("bfloat_lent", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("norm_epsilon", ctypes.c_float),
        ("query_scale", ctypes.c_float),
        ("attention_softcap", ctypes.c_float),
        ("logit_softcap", ctypes.c_float),
        ("embedding_scale", ctypes.c_float),
        ("reserved", ctypes.c_float),
        ("layers", ctypes.POINTER(Layer)),
        ("final_norm", ctypes.c_void_p),
        ("embedding", Matrix),
        ("head", Matrix),
    )


class Stage(ctypes.Structure):
    """``VentrisStage``: one product, and what is made of it."""

    _fields_ = (("matrix", Matrix), ("form", ctypes.c_int64))


class Stages(ctypes.Structure):
    """``VentrisStages``: products in a row."""

    _fields_ = (
        ("stages", ctypes.POINTER(Stage)),
        ("count", ctypes.c_int64),
        ("norm", ctypes.c_void_p),
        ("norm_epsilon", ctypes.c_float),
        ("reserved", ctypes.c_float),
        ("threads", ctypes.c_int64),
    )


class Rope(ctypes.Structure):
    """``VentrisRope``: addresses of the cosines and sines of one table."""

    _fields_ = (("cosines", ctypes.c_void_p), ("sines", ctypes.c_void_p))


class Buffers(ctypes.Structure):
    """``VentrisBuffers``: where a run reads and writes dense rows."""

    _fields_ = (
        ("hidden_in", ctypes.c_void_p),
        ("hidden_out", ctypes.c_void_p),
        ("taps", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
        ("ropes", Rope * 2),
    )


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Give the library's functions their argument and result types."""
    address, integer = ctypes.c_void_p, ctypes.c_int64
    signatures: dict[str, tuple[object, list[object]]] = {
        "ventris_kernel": (ctypes.c_char_p, []),
        "ventris_open": (address, [ctypes.POINTER(Model)]),
        "ventris_close": (None, [address]),
        "ventris_run": (integer, [address, address, ctypes.POINTER(Buffers)]),
        "ventris_head": (None, [address, address, integer, address]),
        "ventris_queries": (None, [address, integer, integer, address, ctypes.POINTER(Rope), address]),
        "ventris_open_stages": (address, [ctypes.POINTER(Stages)]),
        "ventris_close_stages": (None, [address]),
        "ventris_run_stages": (None, [address, address, integer, address]),
        "ventris_top_k": (ctypes.c_float, [address, integer, integer, address, address]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library
