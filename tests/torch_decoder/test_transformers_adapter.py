"""Models that transformers runs score trees like plain text; those that cannot are refused."""

from __future__ import annotations

import functools
import random

import families
import pytest
import torch
import transformers as hf

from ventris.engine.errors import BadInput, Incompatible
from ventris.engine.target import Rows, Target
from ventris.models.transformers_adapter import TransformersTarget

SMALL = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}

MODELS = {
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=96, n_embd=32, n_layer=3, n_head=4, n_positions=64)
    ),
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(**SMALL, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=16)
    ),
    "falcon": lambda: hf.FalconForCausalLM(hf.FalconConfig(**SMALL)),
    "gpt-neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**SMALL, intermediate_size=48)),
    "mixtral": lambda: hf.MixtralForCausalLM(
        hf.MixtralConfig(
            **SMALL, num_key_value_heads=2, intermediate_size=48, num_local_experts=4, sliding_window=7
        )
    ),
}
FAMILIES = ("llama", "mistral", "gemma2", "gemma3")


@functools.cache
def wrapped(name: str) -> TransformersTarget:
    if name in FAMILIES:
        return TransformersTarget(families.build(name).hf_model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name]()
        for parameter in model.parameters():
            parameter.data.normal_(std=0.25)
    return TransformersTarget(model)


@torch.no_grad()
def plain(target: TransformersTarget, tokens: list[int]) -> torch.Tensor:
    """Logits of the unwrapped model, ``[tokens, vocab]``."""
    return target.model(torch.tensor([tokens]), use_cache=False).logits[0]


@pytest.mark.parametrize("name", [*MODELS, *FAMILIES])
def test_a_growing_tree_in_a_batch(name):
    target = wrapped(name)
    assert isinstance(target, Target)
    dice = random.Random(name)
    prompt = [dice.randrange(96) for _ in range(11)]
    tokens = [dice.randrange(96) for _ in range(8)]
    parents = [-1, *(dice.randint(-1, node - 1) for node in range(1, 8))]
    cache, other = target.new_cache(capacity=4), target.new_cache()
    first = target.forward([Rows(cache, prompt, range(-1, 10), wanted=[10])])
    torch.testing.assert_close(first.logits[0], plain(target, prompt)[-1:], atol=1e-4, rtol=0)
    cache.commit(range(11))

    early = target.forward([Rows(cache, tokens[:3], parents[:3])]).logits[0]
    late, aside = target.forward(
        [Rows(cache, tokens[3:], parents, start=3), Rows(other, prompt, range(-1, 10), wanted=[])]
    ).logits
    assert aside.shape == (0, 96)
    for node, logits in enumerate([*early, *late]):
        path, above = [], node
        while above >= 0:
            path.append(tokens[above])
            above = parents[above]
        expected = plain(target, prompt + path[::-1])[-1]
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)

    # After a committed path the next token stands behind it, not behind the whole tree.
    node = max(range(8), key=lambda n: parents[n])
    path = [node]
    while parents[path[0]] >= 0:
        path.insert(0, parents[path[0]])
    cache.commit(path)
    following = target.forward([Rows(cache, [42], [-1])]).logits[0]
    text = [*prompt, *(tokens[i] for i in path), 42]
    torch.testing.assert_close(following, plain(target, text)[-1:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_same_as_the_torch_decoder(name, decoder):
    ours, theirs = decoder(name), wrapped(name)
    tokens = [random.Random(3).randrange(96) for _ in range(14)]
    results = []
    for target in (ours, theirs):
        cache = target.new_cache()
        target.forward([Rows(cache, tokens, range(-1, 13))])
        cache.commit(range(14))
        cache.keep(torch.tensor([0, 1, 4, 5, 6, 7, 9, 10, 12, 13]))
        results.append(target.forward([Rows(cache, [5, 6, 7], [-1, 0, 0])], taps=[0, 2, 4]))
    torch.testing.assert_close(results[0].logits, results[1].logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(results[0].hidden, results[1].hidden, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "opt", "falcon", "gemma2"])
def test_head_and_embeddings(name):
    target = wrapped(name)
    rows = Rows(target.new_cache(), [5, 9, 13], [-1, 0, 0])
    scores = target.forward([rows], taps=[target.num_layers])
    headed = target.head(scores.hidden[target.num_layers])
    torch.testing.assert_close(headed, scores.logits[0], atol=1e-5, rtol=0)
    rows.embeddings = target.embed([rows])
    assert torch.equal(target.forward([rows]).logits[0], scores.logits[0])
    assert len(target.model.get_submodule(target.layers_path)) == target.num_layers


def test_bad_input():
    target = wrapped("gpt2")
    cache = target.new_cache()
    with pytest.raises(BadInput, match="position 64 is past the context of 64"):
        target.forward([Rows(cache, [1] * 65, range(-1, 64))])
    with pytest.raises(BadInput, match="token 96"):
        target.forward([Rows(cache, [96], [-1])])
    with pytest.raises(BadInput, match="cannot tap"):
        target.forward([Rows(cache, [1], [-1])], taps=[9])
    with pytest.raises(Incompatible, match="only run the whole model"):
        target.run_layers([Rows(cache, [1], [-1])], torch.zeros(1, 32), 0, 1)
    with pytest.raises(BadInput, match="cannot load"):
        TransformersTarget.load("no/such/folder/anywhere")


def test_window_layers_must_keep_the_same_rows():
    target = wrapped("gemma3")
    cache = target.new_cache()
    target.forward([Rows(cache, [1, 2, 3], [-1, 0, 1])])
    cache.commit([0, 1, 2])
    cache.keep(torch.tensor([[0, 1], [0, 2], [0, 1], [1, 2]]))
    with pytest.raises(BadInput, match="one mask for all its window layers"):
        target.forward([Rows(cache, [4], [-1])])


REFUSED = {
    "mamba": (
        lambda: hf.MambaForCausalLM(hf.MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2)),
        "recurrent state",
    ),
    "bloom": (
        lambda: hf.BloomForCausalLM(hf.BloomConfig(vocab_size=96, hidden_size=32, n_layer=2, n_head=4)),
        "ALiBi",
    ),
    "falcon": (lambda: hf.FalconForCausalLM(hf.FalconConfig(**SMALL, alibi=True)), "ALiBi"),
    "gpt_neo": (
        lambda: hf.GPTNeoForCausalLM(
            hf.GPTNeoConfig(
                vocab_size=96, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=48,
                attention_types=[[["global", "local"], 1]],
            )
        ),
        "local layers",
    ),
    "t5": (
        lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(vocab_size=96, d_model=32, num_layers=2, num_heads=4, d_ff=32, d_kv=8)
        ),
        "encoder",
    ),
    "qwen3_next": (
        lambda: hf.Qwen3NextForCausalLM(
            hf.Qwen3NextConfig(
                **SMALL, num_key_value_heads=2, num_experts=4, intermediate_size=48, moe_intermediate_size=16
            )
        ),
        "recurrent state",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_at_construction(name):
    build, reason = REFUSED[name]
    with pytest.raises(Incompatible, match=rf"model type '{name}'.*{reason}"):
        TransformersTarget(build())


def test_load(tmp_path):
    model = families.build("smollm").hf_model
    model.save_pretrained(tmp_path)
    target = TransformersTarget.load(str(tmp_path), device="cpu")
    logits = target.forward([Rows(target.new_cache(), [5, 6], [-1, 0])]).logits[0]
    torch.testing.assert_close(logits, plain(target, [5, 6]), atol=1e-5, rtol=0)
    assert target.model.dtype == torch.float32
