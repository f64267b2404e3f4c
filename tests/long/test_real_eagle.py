"""EAGLE-3 as shipped for the embedded model: it changes no token, and its drafts are accepted."""

from __future__ import annotations

import pytest

import ventris
from ventris.engine.errors import BadInput, VentrisError
from ventris.model import Model, Prompt

from .real_prompts import real_prompts

pytestmark = pytest.mark.long

DRAFTS = {
    "tree": "eagle",
    "chain": "eagle:width=1,depth=4",
    "stack": "ngram:min_match=3,eagle",
}


def loaded(dtype: str) -> Model:
    try:
        model = ventris.load(dtype=dtype)
        model.generate("x", max_new_tokens=1, draft="eagle")
    except BadInput as error:
        pytest.skip(f"no EAGLE-3 checkpoint lies here: {error}")
    except VentrisError as error:
        pytest.skip(f"the embedded model cannot be loaded here: {error}")
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int4-a8"])
@pytest.mark.parametrize("name", DRAFTS)
def test_greedy_ids_equal_autoregressive_alone_and_in_a_batch(name: str, dtype: str) -> None:
    model = loaded(dtype)
    prompts = real_prompts(12)
    settings = {"max_new_tokens": 96, "policy": "fixed:nodes=12"}
    plain = [model.generate(prompt, max_new_tokens=96).tokens for prompt in prompts]
    alone = [model.generate(prompt, draft=DRAFTS[name], **settings) for prompt in prompts]
    together = model.generate(prompts, draft=DRAFTS[name], max_batch=5, **settings)
    assert [completion.tokens for completion in alone] == plain
    assert [completion.tokens for completion in together] == plain
    steps, tokens = (sum(getattr(c.stats, key) for c in alone) for key in ("steps", "new_tokens"))
    assert tokens > 1.4 * steps


@pytest.mark.parametrize("name", DRAFTS)
def test_the_same_seed_gives_the_same_text_at_temperature_one(name: str) -> None:
    model = loaded("int4")
    settings = {"max_new_tokens": 64, "temperature": 1.0, "verifier": "coupled", "top_p": 0.95}
    prompts = real_prompts(6)
    plain = [model.generate(p, seed=seed, **settings).tokens for seed, p in enumerate(prompts)]
    drafted = model.generate(
        [Prompt(p, {"seed": seed}) for seed, p in enumerate(prompts)],
        draft=DRAFTS[name],
        policy="fixed:nodes=12",
        **settings,
    )
    assert [completion.tokens for completion in drafted] == plain
