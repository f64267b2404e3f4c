"""The aligned draft model and Kangaroo as shipped for the embedded model: the same tokens, drafts kept."""

from __future__ import annotations

import pytest

from ventris.model import Prompt

from .real_prompts import real_prompts
from .test_real_heads import loaded

pytestmark = pytest.mark.long

DRAFTS = ["aligned", "aligned:width=2", "kangaroo", "kangaroo:confidence=0", "ngram:min_match=3,kangaroo"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int4-a8"])
@pytest.mark.parametrize("draft", DRAFTS)
def test_greedy_ids_equal_autoregressive_alone_and_in_a_batch(draft: str, dtype: str) -> None:
    model = loaded(dtype, draft)
    prompts = real_prompts(12)
    settings = {"max_new_tokens": 96, "policy": "fixed:nodes=8"}
    plain = [model.generate(prompt, max_new_tokens=96).tokens for prompt in prompts]
    alone = [model.generate(prompt, draft=draft, **settings) for prompt in prompts]
    together = model.generate(prompts, draft=draft, max_batch=5, **settings)
    assert [completion.tokens for completion in alone] == plain
    assert [completion.tokens for completion in together] == plain
    steps, tokens = (sum(getattr(c.stats, key) for c in alone) for key in ("steps", "new_tokens"))
    assert tokens > 1.1 * steps


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_same_seed_gives_the_same_text_at_temperature_one(draft: str) -> None:
    model = loaded("int4", draft)
    settings = {"max_new_tokens": 64, "temperature": 1.0, "verifier": "coupled", "top_p": 0.95}
    prompts = real_prompts(6)
    plain = [model.generate(p, seed=seed, **settings).tokens for seed, p in enumerate(prompts)]
    together = model.generate(
        [Prompt(p, {"seed": seed}) for seed, p in enumerate(prompts)],
        draft=draft,
        policy="fixed:nodes=8",
        **settings,
    )
    assert [completion.tokens for completion in together] == plain
