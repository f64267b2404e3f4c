"""Bit-identical results, whatever is computed beside them and however the rows came to lie in the cache."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from tiny_decoders import EVERYTHING, LLAMA, chain, decoder, prefill, random_tokens
from torch import Tensor

from ventris.engine.cache import KVCache
from ventris.engine.target import Rows
from ventris.engine.tree import TokenTree
from ventris.models.native import NativeDecoder

DTYPES = ("float32", "bfloat16", "int8", "int4", "int8-a8", "int4-a8")
ODD = replace(LLAMA, head_dim=10, hidden_size=40, intermediate_size=50, num_kv_heads=1)
MODELS = [
    pytest.param(config, dtype, id=f"{config.family}-{config.head_dim}-{dtype}")
    for config in (LLAMA, EVERYTHING, ODD)
    for dtype in DTYPES
]


def random_tree(vocab: int, nodes: int, seed: int = 3) -> TokenTree:
    source = random.Random(seed)
    tree = TokenTree.root(source.randrange(vocab))
    while len(tree) < nodes:
        tree.add(source.randrange(vocab), source.randrange(len(tree)))
    return tree


def alone(model: NativeDecoder, tokens: list[int]) -> Tensor:
    """Logits of all tokens, computed one at a time."""
    return prefill(model, tokens, chunk=1)[1]


@pytest.mark.parametrize(("config", "dtype"), MODELS)
def test_chunks_of_any_size_agree(config, dtype) -> None:
    model = decoder(config, dtype)
    tokens = random_tokens(config, 43)
    expected = alone(model, tokens)
    # Every size that has a kernel of its own, and the ones behind them that are shared out over two calls.
    for chunk in (*range(2, 26), 43):
        assert torch.equal(prefill(model, tokens, chunk)[1], expected)


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_that_do_not_share_the_heads_evenly_agree(threads) -> None:
    tokens = random_tokens(LLAMA, 43)
    expected = alone(decoder(LLAMA, "bfloat16"), tokens)
    model = decoder(LLAMA, "bfloat16", threads=threads)
    for chunk in (1, 2, 3, 9, 17):
        assert torch.equal(prefill(model, tokens, chunk)[1], expected)


@pytest.mark.parametrize(("config", "dtype"), MODELS)
def test_tree_nodes_agree_with_their_paths_decoded_alone(config, dtype) -> None:
    model = decoder(config, dtype)
    prompt = random_tokens(config, 19)
    tree = random_tree(config.vocab_size, 23)
    cache, _ = prefill(model, prompt)
    logits = model.forward([Rows(cache, tree.tokens, tree.parents)]).logits[0]
    for node in (0, 5, 11, 17, 22):
        path = [tree.tokens[i] for i in tree.path_to(node)]
        assert torch.equal(logits[node], alone(model, prompt + path)[-1])


@pytest.mark.parametrize(("config", "dtype"), MODELS)
def test_committing_a_path_changes_nothing(config, dtype) -> None:
    model = decoder(config, dtype)
    prompt = random_tokens(config, 19)
    tree = random_tree(config.vocab_size, 23)
    cache, _ = prefill(model, prompt)
    model.forward([Rows(cache, tree.tokens, tree.parents)])
    path = tree.path_to(max(range(len(tree)), key=lambda node: tree.depths()[node]))
    cache.commit(path)
    tail = random_tokens(config, 5, seed=9)
    logits = model.forward([chain(cache, tail)]).logits[0]
    expected = alone(model, prompt + [tree.tokens[node] for node in path] + tail)[-5:]
    assert torch.equal(logits, expected)


@pytest.mark.parametrize(("config", "dtype"), MODELS)
def test_a_batch_agrees_with_its_entries_alone(config, dtype) -> None:
    model = decoder(config, dtype)
    prompts = [random_tokens(config, count, seed=count) for count in (3, 31, 12)]
    trees = [random_tree(config.vocab_size, nodes, seed=nodes) for nodes in (1, 9, 14)]

    def entries() -> list[Rows]:
        caches = [prefill(model, prompt)[0] for prompt in prompts]
        return [Rows(cache, tree.tokens, tree.parents) for cache, tree in zip(caches, trees, strict=True)]

    together = model.forward(entries()).logits
    for logits, rows in zip(together, entries(), strict=True):
        assert torch.equal(logits, model.forward([rows]).logits[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tree_grown_level_by_level_agrees(dtype: str) -> None:
    model = decoder(EVERYTHING, dtype)
    cache, _ = prefill(model, random_tokens(EVERYTHING, 10))
    tokens, parents = random_tokens(EVERYTHING, 7), [-1, 0, 0, 1, 1, 2, 4]
    whole = model.forward([Rows(cache, tokens, parents)]).logits[0]
    first = model.forward([Rows(cache, tokens[:3], parents[:3])]).logits[0]
    second = model.forward([Rows(cache, tokens[3:], parents, start=3, wanted=[3, 0])]).logits[0]
    assert torch.equal(first, whole[:3])
    assert torch.equal(second, whole[[6, 3]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_number_of_threads_changes_nothing(dtype: str) -> None:
    tokens = random_tokens(LLAMA, 30)
    results = [prefill(decoder(LLAMA, dtype, threads), tokens)[1] for threads in (1, 2, 5)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_segments_and_taps_agree_with_a_forward(dtype: str) -> None:
    model = decoder(EVERYTHING, dtype)
    prompt, tree = random_tokens(EVERYTHING, 11), random_tree(EVERYTHING.vocab_size, 12)
    layers = model.num_layers

    def batch() -> list[Rows]:
        return [Rows(prefill(model, prompt)[0], tree.tokens, tree.parents)]

    whole = model.forward(batch(), taps=range(layers + 1))
    for split in range(layers + 1):
        entries = batch()
        rows = model.embed(entries)
        assert torch.equal(rows, whole.hidden[0])
        middle, _ = model.run_layers(entries, rows, 0, split)
        assert torch.equal(middle, whole.hidden[split])
        last, taps = model.run_layers(entries, middle, split, layers, taps=[split, layers])
        assert torch.equal(taps[split], middle)
        assert torch.equal(last, whole.hidden[layers])
        assert torch.equal(taps[layers], last)
        assert torch.equal(model.head(last), whole.logits[0])


def test_embeddings_stand_in_for_tokens() -> None:
    model = decoder(EVERYTHING, "int4")
    tokens = random_tokens(EVERYTHING, 9)
    expected = prefill(model, tokens)[1]
    rows = model.embed([chain(model.new_cache(), tokens)])
    entry = chain(model.new_cache(), [-1] * len(tokens))
    entry.embeddings = rows
    assert torch.equal(model.forward([entry]).logits[0], expected)


@pytest.mark.parametrize(("config", "dtype"), MODELS)
def test_forks_agree_with_a_fresh_prefill(config, dtype) -> None:
    model = decoder(config, dtype)
    prompt, ours, theirs = (random_tokens(config, 13, seed=seed) for seed in (1, 2, 3))
    cache, _ = prefill(model, prompt)
    twin = cache.fork()
    for branch, tokens in ((cache, ours), (twin, theirs)):
        logits = model.forward([chain(branch, tokens)]).logits[0]
        branch.commit(range(len(tokens)))
        assert torch.equal(logits, alone(model, prompt + tokens)[-13:])
    third = twin.fork()
    assert len(third.spans) > 1
    logits = model.forward([chain(third, ours)]).logits[0]
    assert torch.equal(logits, alone(model, prompt + theirs + ours)[-13:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_truncation_agrees_with_a_fresh_prefill(dtype: str) -> None:
    model = decoder(EVERYTHING, dtype)
    prompt, tail = random_tokens(EVERYTHING, 20), random_tokens(EVERYTHING, 4, seed=5)
    cache, _ = prefill(model, prompt)
    cache.truncate(9)
    logits = model.forward([chain(cache, tail)]).logits[0]
    assert torch.equal(logits, alone(model, prompt[:9] + tail)[-4:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_kept_rows_keep_their_positions(dtype: str) -> None:
    """Rows dropped outside every window are not missed; the positions of the rest still count."""
    config = replace(EVERYTHING, window_layers=(True,) * 3)
    model = decoder(config, dtype)
    prompt, tail = random_tokens(config, 20), random_tokens(config, 4, seed=5)
    # All layers see 4 keys back, so three layers together reach 12 tokens back.
    kept = [0, 3, *range(6, 20)]
    cache, _ = prefill(model, prompt)
    cache.keep(torch.tensor(kept))
    logits = model.forward([chain(cache, tail)]).logits[0]
    assert torch.equal(logits, alone(model, prompt + tail)[-4:])


def test_rows_may_differ_between_layers() -> None:
    model = decoder(LLAMA)
    cache, _ = prefill(model, random_tokens(LLAMA, 12))
    kept = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [2, 5, 8, 11]])
    expected = [
        torch.stack([cache.rows(layer)[part][:, kept[layer]] for part in (0, 1)]) for layer in range(3)
    ]
    cache.keep(kept)
    model.forward([chain(cache, [5, 6])])
    for layer in range(3):
        assert torch.equal(torch.stack(cache.rows(layer)), expected[layer])
    assert cache.positions()[2].tolist() == [2, 5, 8, 11]


def test_calls_from_several_threads_take_turns() -> None:
    models = [decoder(LLAMA, dtype) for dtype in ("int4", "bfloat16")]
    prompts = [random_tokens(LLAMA, 17, seed=seed) for seed in range(12)]
    expected = [[prefill(model, prompt)[1] for prompt in prompts] for model in models]

    def work(job: int) -> bool:
        model, prompt = job % 2, job // 2 % len(prompts)
        return torch.equal(prefill(models[model], prompts[prompt], chunk=5)[1], expected[model][prompt])

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(96)))


def test_a_forked_process_computes_too() -> None:
    import os

    model = decoder(LLAMA, "int4")
    tokens = random_tokens(LLAMA, 9)
    expected = prefill(model, tokens)[1]
    child = os.fork()
    if child == 0:
        same = torch.equal(prefill(model, tokens)[1], expected)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(prefill(model, tokens)[1], expected)


def test_many_small_forwards_with_more_threads_than_processors() -> None:
    """Workers that come late find nothing to do, and nothing waits for them."""
    model = decoder(LLAMA, "int4", threads=8)
    cache: KVCache = prefill(model, random_tokens(LLAMA, 4))[0]
    expected = model.forward([chain(cache, [1])]).logits[0]
    for _ in range(200):
        assert torch.equal(model.forward([chain(cache, [1])]).logits[0], expected)
