"""Attention put together from parts by their log-sum-exps, against plain attention over all rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ventris.engine.cache import CacheLayout, KVCache
from ventris.engine.errors import BadInput
from ventris.engine.target import Rows
from ventris.models import torch_stack
from ventris.models.cross_attention import lent_views
from ventris.models.merged_attention import Part, attend_part, attend_parts, merge

KV_HEADS, GROUP, DIM = 2, 3, 16


def plain(query, keys, values, scale, mask):
    """Softmax over all rows at once, in float64."""
    scores = query.double() @ keys[:, None].double().transpose(-1, -2) * scale + mask.double()
    return scores.softmax(-1) @ values[:, None].double()


def tree_mask(nodes: int, generator: torch.Generator) -> torch.Tensor:
    """Of a random tree: each node sees itself and its ancestors."""
    visible = torch.eye(nodes, dtype=torch.bool)
    for node in range(1, nodes):
        visible[node] |= visible[int(torch.randint(node, (), generator=generator))]
    return torch.zeros(nodes, nodes).masked_fill_(~visible, -torch.inf)


@given(
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.integers(0, 300), max_size=3),
    nodes=st.integers(1, 20),
    spread=st.sampled_from([0.1, 1.0, 8.0]),
)
def test_parts_give_the_softmax_over_their_union(seed, cuts, nodes, spread):
    generator = torch.Generator().manual_seed(seed)
    sizes = [*cuts, nodes]
    keys = [spread * torch.randn(KV_HEADS, size, DIM, generator=generator) for size in sizes]
    values = [torch.randn(KV_HEADS, size, DIM, generator=generator) for size in sizes]
    query = torch.randn(KV_HEADS, GROUP, nodes, DIM, generator=generator)
    tree = tree_mask(nodes, generator)
    mask = torch.cat([torch.zeros(nodes, sum(cuts)), tree], dim=1)
    found = attend_parts(query, list(zip(keys, values, strict=True)), DIM**-0.5, tree)
    expected = plain(query, torch.cat(keys, dim=1), torch.cat(values, dim=1), DIM**-0.5, mask)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_without_rows_there_are_zeros():
    query = torch.randn(KV_HEADS, GROUP, 4, DIM)
    empty = torch.empty(KV_HEADS, 0, DIM)
    assert attend_parts(query, [], 1.0).eq(0).all()
    assert attend_parts(query, [(empty, empty)], 1.0).eq(0).all()


def test_adding_up_parts_without_their_weights_is_noticed():
    """A broken variant: the mean of two parts is not the softmax over both."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(KV_HEADS, 5, DIM, generator=generator)
    rows = [torch.randn(KV_HEADS, 30, DIM, generator=generator) for _ in range(4)]
    parts = [attend_part(query, *rows[:2], 1.0), attend_part(query, *rows[2:], 1.0)]
    whole = F.scaled_dot_product_attention(
        query, torch.cat(rows[::2], dim=1), torch.cat(rows[1::2], dim=1), scale=1.0
    )
    torch.testing.assert_close(merge(parts), whole, rtol=1e-5, atol=1e-5)
    equal = [Part(part.mixed, torch.zeros_like(part.log_sum)) for part in parts]
    assert float((merge(equal) - whole).abs().max()) > 0.1


@pytest.mark.parametrize("name", ["smollm", "llama", "qwen3", "gemma3", "phi3"])
def test_a_decoder_scores_trees_the_same_both_ways(name, decoder, monkeypatch):
    target = decoder(name, torch.float64)
    tokens, parents = [5, 9, 20, 1, 7, 8], [-1, 0, 0, 1, -1, 4]

    def scored() -> torch.Tensor:
        cache = target.new_cache(capacity=16)
        prompt = [1 + i % 60 for i in range(40)]
        target.forward([Rows(cache, prompt, range(-1, 39))])
        cache.commit(range(40))
        shared = cache.fork()  # its rows lie in several blocks after the next pass
        target.forward([Rows(shared, [3, 4], [-1, 0])])
        shared.commit([0, 1])
        first = target.forward([Rows(shared, tokens[:4], parents[:4])]).logits[0]
        rest = target.forward([Rows(shared, tokens[4:], parents, 4)]).logits[0]
        return torch.cat([first, rest])

    monkeypatch.setattr(torch_stack, "MERGE_FROM", 10**9)
    masked = scored()
    calls = []
    attend = torch_stack.attend_parts
    monkeypatch.setattr(torch_stack, "MERGE_FROM", 1)
    monkeypatch.setattr(torch_stack, "attend_parts", lambda *given: calls.append(given) or attend(*given))
    torch.testing.assert_close(scored(), masked, rtol=1e-9, atol=1e-9)
    assert calls


def test_lent_rows_of_other_sizes_are_refused(decoder):
    config = decoder("llama").config
    layout = CacheLayout(2, config.num_kv_heads, config.head_dim, torch.float32, torch.device("cpu"))
    cache = KVCache(layout)
    assert lent_views(None, config) == []
    assert lent_views(cache, config) == []
    cache.reserve(3)
    cache.commit(range(3))
    [(keys, values)] = lent_views(cache, config)
    assert keys.shape == values.shape == (config.num_kv_heads, 3, config.head_dim)
    assert keys.data_ptr() == cache.spans[0].storage.data[1, 0].data_ptr()
    with pytest.raises(BadInput, match="the lent rows have 7 heads of"):
        lent_views(KVCache(replace(layout, kv_heads=7)), config)
