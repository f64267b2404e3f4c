"""The embedded model: no draft, batch or seed changes what is decoded. Takes minutes."""

from __future__ import annotations

import pytest
import torch

import ventris
from ventris.engine.errors import VentrisError
from ventris.engine.target import Rows
from ventris.model import Model
from ventris.models.weights import dense
from ventris.prompts import Prompt
from ventris.testing.guides import NoRepeatedPairs

from .real_prompts import real_prompts

pytestmark = pytest.mark.long

DRAFTS = {
    "ngram": "ngram",
    "chain": "model:smollm2-135m-instruct,depth=4",
    "tree": "model:smollm2-135m-instruct,width=3,nodes=10",
    "stack": "ngram:min_match=3,model:smollm2-135m-instruct",
}
TOKENS = 128


def loaded(dtype: str) -> Model:
    try:
        return ventris.load(dtype=dtype)
    except VentrisError as error:
        pytest.skip(f"the embedded model cannot be loaded here: {error}")


@pytest.fixture(scope="module")
def exact_model() -> Model:
    return loaded("float32")


@pytest.fixture(scope="module")
def plain(exact_model: Model) -> list[list[int]]:
    return [exact_model.generate(p, max_new_tokens=TOKENS).tokens for p in real_prompts(40)]


@pytest.mark.parametrize("name", DRAFTS)
def test_greedy_float32_ids_equal_autoregressive(
    name: str, exact_model: Model, plain: list[list[int]]
) -> None:
    for prompt, expected in zip(real_prompts(40), plain, strict=True):
        drafted = exact_model.generate(
            prompt, max_new_tokens=TOKENS, draft=DRAFTS[name], policy="fixed:nodes=12"
        )
        assert drafted.tokens == expected


def test_greedy_float32_ids_in_a_mixed_batch_of_eight(exact_model: Model, plain: list[list[int]]) -> None:
    kinds = [None, *DRAFTS.values()]
    mixed = [
        Prompt(prompt, {"draft": kinds[index % len(kinds)], "policy": "fixed:nodes=12"})
        for index, prompt in enumerate(real_prompts(40))
    ]
    together = exact_model.generate(mixed, max_new_tokens=TOKENS, max_batch=8)
    assert [completion.tokens for completion in together] == plain


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4", "int4-a8"])
def test_every_weight_format_decodes_alike_with_and_without_drafts(dtype: str) -> None:
    """The native runtime gives the same bits for a node whatever runs beside it, in every format."""
    model = loaded(dtype)
    prompts = real_prompts(8)
    alone = [model.generate(p, max_new_tokens=64).tokens for p in prompts]
    together = model.generate(prompts, max_new_tokens=64, draft="ngram", policy="fixed:nodes=12")
    assert [completion.tokens for completion in together] == alone


@pytest.mark.parametrize("name", DRAFTS)
def test_the_same_seed_gives_the_same_text_at_temperature_one(name: str) -> None:
    model = loaded("int4")
    settings = {
        "max_new_tokens": 64,
        "temperature": 1.0,
        "verifier": "coupled",
        "top_p": 0.95,
        "presence_penalty": 0.3,
        "repetition_penalty": 1.05,
        "logit_bias": {28: 1.5},
    }
    prompts = real_prompts(6)
    guided = [
        model.generate(p, seed=seed, guides=[NoRepeatedPairs()], **settings).tokens
        for seed, p in enumerate(prompts)
    ]
    drafted = model.generate(
        [Prompt(p, {"seed": seed}) for seed, p in enumerate(prompts)],
        guides=[NoRepeatedPairs()],
        draft=DRAFTS[name],
        policy="fixed:nodes=12",
        **settings,
    )
    assert [completion.tokens for completion in drafted] == guided


def test_logits_agree_with_transformers_on_the_same_weights(exact_model: Model) -> None:
    reference = transformers_twin(exact_model)
    for prompt in real_prompts(5):
        tokens = exact_model.tokenizer.chat([{"role": "user", "content": prompt}])[:200]
        cache = exact_model.target.new_cache(len(tokens))
        ours = exact_model.target.forward([Rows(cache, tokens, range(-1, len(tokens) - 1))]).logits[0]
        with torch.no_grad():
            theirs = reference(torch.tensor([tokens])).logits[0]
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
        assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


def transformers_twin(model: Model) -> torch.nn.Module:
    """The same dequantised weights in transformers' own Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = model.source.config
    twin = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            max_position_embeddings=config.context_length,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=True,
        )
    )
    weights = model.source.weights
    names = [name for name in twin.state_dict() if name != "lm_head.weight"]
    twin.load_state_dict({name: dense(weights[name]) for name in names}, strict=False)
    twin.tie_weights()
    return twin.eval()
