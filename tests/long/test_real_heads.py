"""Trained drafters as shipped for the embedded model: they change no token, and drafts are accepted."""

from __future__ import annotations

import pytest

import ventris
from ventris.engine.errors import BadInput, VentrisError
from ventris.model import Model
from ventris.prompts import Prompt

from .real_prompts import real_prompts

pytestmark = pytest.mark.long

# Each with the nodes of a step, and the least tokens a pass on these prompts.
DRAFTS = {
    "medusa": (12, 1.2),
    "medusa:tree=dynamic": (12, 1.2),
    "hydra": (12, 1.2),
    "hydra:tree=dynamic": (12, 1.2),
    "ngram:min_match=3,hydra": (12, 1.2),
    "eagle": (12, 1.4),
    "eagle:width=1,depth=4": (12, 1.4),
    "ngram:min_match=3,eagle": (12, 1.4),
    "aligned": (8, 1.1),
    "aligned:width=2": (8, 1.1),
    "kangaroo": (8, 1.1),
    "kangaroo:confidence=0": (8, 1.1),
    "chimera": (12, 1.3),
    "falcon": (8, 1.1),
    "ngram:min_match=3,kangaroo": (8, 1.1),
    "longspec": (16, 1.1),
    "longspec:width=1,depth=4": (8, 1.1),
}


def loaded(dtype: str, draft: str) -> Model:
    try:
        model = ventris.load(dtype=dtype)
        model.generate("x", max_new_tokens=1, draft=draft)
    except BadInput as error:
        pytest.skip(f"no checkpoint lies here: {error}")
    except VentrisError as error:
        pytest.skip(f"the embedded model cannot be loaded here: {error}")
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int4", "int4-a8"])
@pytest.mark.parametrize("draft", DRAFTS)
def test_greedy_ids_equal_autoregressive_alone_and_in_a_batch(draft: str, dtype: str) -> None:
    model = loaded(dtype, draft)
    prompts = real_prompts(12)
    nodes, least = DRAFTS[draft]
    settings = {"max_new_tokens": 96, "policy": f"fixed:nodes={nodes}"}
    plain = [model.generate(prompt, max_new_tokens=96).tokens for prompt in prompts]
    alone = [model.generate(prompt, draft=draft, **settings) for prompt in prompts]
    together = model.generate(prompts, draft=draft, max_batch=5, **settings)
    assert [completion.tokens for completion in alone] == plain
    assert [completion.tokens for completion in together] == plain
    steps, tokens = (sum(getattr(c.stats, key) for c in alone) for key in ("steps", "new_tokens"))
    assert tokens > least * steps


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_same_seed_gives_the_same_text_at_temperature_one(draft: str) -> None:
    model = loaded("int4", draft)
    settings = {"max_new_tokens": 64, "temperature": 1.0, "verifier": "coupled", "top_p": 0.95}
    policy = f"fixed:nodes={DRAFTS[draft][0]}"
    prompts = real_prompts(6)
    plain = [model.generate(p, seed=seed, **settings).tokens for seed, p in enumerate(prompts)]
    alone = [
        model.generate(p, draft=draft, policy=policy, seed=seed, **settings).tokens
        for seed, p in enumerate(prompts)
    ]
    together = model.generate(
        [Prompt(p, {"seed": seed}) for seed, p in enumerate(prompts)],
        draft=draft,
        policy=policy,
        **settings,
    )
    assert alone == plain
    assert [completion.tokens for completion in together] == plain
