"""Attention to another decoder's rows: against torch, the same bits in any company, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_native_invariance import random_tree
from tiny_decoders import (
    EVERYTHING,
    LLAMA,
    chain,
    decoder,
    mean_error,
    prefill,
    random_tokens,
    random_weights,
)

from ventris.engine.cache import KVCache
from ventris.engine.errors import BadInput
from ventris.engine.target import Rows
from ventris.models.config import DecoderConfig
from ventris.models.native import NativeDecoder
from ventris.models.torch_decoder import TorchDecoder

ODD = replace(LLAMA, head_dim=10, hidden_size=40, intermediate_size=50, num_kv_heads=1)
CONFIGS = [
    pytest.param(config, id=f"{config.family}-{config.head_dim}") for config in (LLAMA, EVERYTHING, ODD)
]
DTYPES = ("float32", "bfloat16", "int8-a8")


def crossing(config: DecoderConfig) -> DecoderConfig:
    """A decoder that looks at the rows of one of ``config``."""
    return replace(config, cross_attention=True, post_norms=False, tied_head=False)


def reader(config: DecoderConfig, dtype: str, lender: NativeDecoder) -> NativeDecoder:
    """A decoder beside a lender."""
    stored, _, narrow = dtype.partition("-")
    weights = random_weights(crossing(config), 4)
    return NativeDecoder.from_weights(
        crossing(config), weights, stored, 2, activation_bits=8 if narrow else 16, lender=lender
    )


def node_alone(model: NativeDecoder, tokens: list[int], lent: KVCache | None) -> torch.Tensor:
    """Logits after the last of the tokens, which run one by one."""
    cache = model.new_cache(4)
    for token in tokens:
        rows = chain(cache, [token])
        rows.lent = lent
        logits = model.forward([rows]).logits[0]
        cache.commit([0])
    return logits[0]


@pytest.mark.parametrize("config", CONFIGS)
def test_it_computes_what_torch_does(config):
    lender = decoder(config)
    embedding = random_weights(config)["model.embed_tokens.weight"]  # the lender's
    beside = TorchDecoder(crossing(config), random_weights(crossing(config), 4), embedding=embedding)
    lent, _ = prefill(lender, random_tokens(config, 37))
    native = reader(config, "float32", lender)
    tokens, parents = [5, 9, 20, 1, 7], [-1, 0, 0, 1, -1]
    for rows_lent in (lent, None, lender.new_cache(4)):
        results = []
        for model in (native, beside):
            cache = model.new_cache(8)
            prompt = chain(cache, random_tokens(config, 11, seed=3))
            prompt.lent = rows_lent
            first = model.forward([prompt]).logits[0]
            cache.commit(range(11))
            tree = model.forward([Rows(cache, tokens, parents, lent=rows_lent)]).logits[0]
            results.append(torch.cat([first, tree]).float())
        assert mean_error(*results) < 1e-4
    # The rows matter: with none, something else comes out.
    assert not torch.equal(node_alone(native, [5, 9], lent), node_alone(native, [5, 9], None))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("config", CONFIGS)
def test_nodes_get_the_same_bits_in_any_company(config, dtype):
    lender = decoder(config, dtype)
    model = reader(config, dtype, lender)
    whole = random_tokens(config, 45)
    lent, _ = prefill(lender, whole)
    halves = lender.new_cache(8)
    lender.forward([chain(halves, whole[:20])])
    halves.commit(range(20))
    twin, halves = halves, halves.fork()  # what follows goes to a second block
    lender.forward([chain(halves, whole[20:])])
    halves.commit(range(25))
    assert len(halves.spans) == 2
    assert twin.length == 20
    tree = random_tree(config.vocab_size, 19)
    cache, other = model.new_cache(8), model.new_cache(8)
    batch = [Rows(cache, tree.tokens, tree.parents, lent=lent), Rows(other, [3], [-1], lent=halves)]
    logits = model.forward(batch).logits
    for node in (0, 7, 18):
        path = [tree.tokens[i] for i in tree.path_to(node)]
        for rows in (lent, halves):
            assert torch.equal(logits[0][node], node_alone(model, path, rows))


def test_rows_that_do_not_fit_are_refused():
    lender = decoder(LLAMA, "float32")
    model = reader(LLAMA, "int8", lender)
    with pytest.raises(BadInput, match=r"the lent rows are torch\.bfloat16 on cpu, not torch\.float32 here"):
        node_alone(model, [3], model.new_cache(4))
    other = decoder(replace(LLAMA, num_kv_heads=1), "float32")
    with pytest.raises(
        BadInput, match="the lent rows have 1 heads of 32 numbers, this decoder's have 2 of 32"
    ):
        node_alone(model, [3], other.new_cache(4))


def test_a_lender_in_float32_is_read_by_a_smaller_format():
    lender = decoder(LLAMA, "float32")
    lent, _ = prefill(lender, random_tokens(LLAMA, 30))
    exact, rounded = reader(LLAMA, "float32", lender), reader(LLAMA, "bfloat16", lender)
    assert mean_error(node_alone(rounded, [5, 9], lent), node_alone(exact, [5, 9], lent)) < 0.05
