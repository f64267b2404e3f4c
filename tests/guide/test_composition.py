"""The same ids with and without drafts, forced or not, alone and in a batch, under every guide."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import jsonschema
import pytest

from ventris.draft import DraftModel, NGram
from ventris.engine.request import Completion
from ventris.guide import Choice, Grammar, HardGuide, JsonSchema, Regex, Words
from ventris.verify import Block, PointMass, Rejection

from .tiny import PROMPT, TinyTarget, decode

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "tags": {"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 1, "maxItems": 2},
        "true": {"type": "boolean"},
    },
    "required": ["name", "tags", "true"],
    "additionalProperties": False,
}
GUIDES: dict[str, Callable[..., HardGuide]] = {
    "json-schema": lambda **options: JsonSchema(SCHEMA, **options),
    "regex": lambda **options: Regex("(red|12)( a)*(name: (true|ab)){1,3}", **options),
    "choice": lambda **options: Choice(["red name", "red true", "12 ab"], **options),
    "grammar": lambda **options: Grammar('start: item ("," item)*\nitem: "name" | "[" start "]"', **options),
}
DRAFTERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "ngram": NGram,
    "model (chain)": lambda: DraftModel(TinyTarget(blend=(9, 0.4))),
    "model (tree)": lambda: DraftModel(TinyTarget(blend=(9, 0.4)), width=3, samples=0),
    "model (drawn tree)": lambda: DraftModel(TinyTarget(blend=(9, 0.4)), samples=3),
}
OTHERS = [[4, 5], [60] * 20, [7, 8, 7, 8], [9], [1, 2, 3], [50, 50, 60], [90] * 9]
SETTINGS: dict[str, dict[str, Any]] = {"greedy": {}, "coupled": {"temperature": 1.0, "seed": 3}}


@cache
def plain(guide: str, setting: str) -> list[list[int]]:
    """Undrafted, unforced, one by one."""
    done = [
        decode([GUIDES[guide](forced=False)], prompts=[p], **SETTINGS[setting])[0] for p in (PROMPT, *OTHERS)
    ]
    assert all(completion.valid for completion in done if completion.finish_reason == "stop")
    return [completion.tokens for completion in done]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_same_ids_as_undrafted_and_unforced(drafter: str, guide: str, setting: str) -> None:
    for prompts in ([PROMPT], [PROMPT, *OTHERS]):
        done = decode([GUIDES[guide]()], drafter=DRAFTERS[drafter](), prompts=prompts, **SETTINGS[setting])
        assert [completion.tokens for completion in done] == plain(guide, setting)[: len(prompts)]
        for completion in done:
            assert completion.valid == (completion.finish_reason == "stop")
            if guide == "json-schema" and completion.valid:
                jsonschema.validate(json.loads(completion.text), SCHEMA)


@pytest.mark.parametrize("verifier", [PointMass, Rejection, Block])
@pytest.mark.parametrize("guide", GUIDES)
def test_finished_texts_are_valid_under_every_exact_verifier(guide: str, verifier: type) -> None:
    drafter = DraftModel(TinyTarget(blend=(9, 0.4)))
    for seed in range(4):
        done = decode([GUIDES[guide]()], drafter=drafter, verifier=verifier(), temperature=1.0, seed=seed)[0]
        assert done.valid == (done.finish_reason == "stop")


def test_forced_text_saves_steps() -> None:
    forced, unforced = (decode([JsonSchema(SCHEMA, forced=f)])[0] for f in (True, False))
    assert forced.tokens == unforced.tokens
    assert forced.stats.steps < 0.9 * unforced.stats.steps
    assert forced.stats.dictated == unforced.stats.steps - forced.stats.steps
    assert unforced.stats.dictated == 0


def test_forced_text_is_a_draft_where_somebody_else_has_a_say_or_looks() -> None:
    plain = decode([JsonSchema(SCHEMA)])[0]
    for options in (
        {"repetition_penalty": 1.0000001},
        {"guides": [Words(exclude=["zzzz"])]},
        {"logprobs": 1},
    ):
        guides = [JsonSchema(SCHEMA), *options.pop("guides", ())]
        done = decode(guides, **options)[0]
        assert done.tokens == plain.tokens
        assert done.stats.dictated == 0
        # What is forced is allowed alone, so no such draft is ever refused.
        assert done.stats.accepted == done.stats.drafted > 0


@pytest.mark.parametrize("drafter", ["ngram", "model"])
def test_drafters_go_on_behind_forced_text(drafter: str) -> None:
    # Each prompt holds an answer, so that there is something to copy.
    prompts = [[*p, *decode([JsonSchema(SCHEMA)], prompts=[p])[0].tokens, *p] for p in (PROMPT, *OTHERS)]
    make = NGram if drafter == "ngram" else lambda: DraftModel(TinyTarget(blend=(9, 0.1)))
    forced, unforced = (
        decode([JsonSchema(SCHEMA, forced=f)], drafter=make(), prompts=prompts) for f in (True, False)
    )
    assert [done.tokens for done in forced] == [done.tokens for done in unforced]
    alone = decode([JsonSchema(SCHEMA)], prompts=prompts)

    def total(completions: list[Completion], count: str) -> int:
        return sum(getattr(done.stats, count) for done in completions)

    # Fewer steps than forced text or drafts alone, and no draft is wasted on what is forced.
    assert total(forced, "steps") < 0.95 * min(total(alone, "steps"), total(unforced, "steps"))
    assert total(forced, "drafted") <= total(unforced, "drafted")
    assert total(forced, "dictated") > 0


def test_a_stop_text_and_the_limit_may_fall_into_forced_text() -> None:
    plain = decode([JsonSchema(SCHEMA)])[0]
    for limit in range(1, len(plain.tokens) + 2):
        cut = decode([JsonSchema(SCHEMA)], tokens=limit)[0]
        assert cut.tokens == plain.tokens[:limit]
        # Whole without its end token is whole.
        assert cut.valid == (limit >= len(plain.tokens) - 1)
    stopped = decode([JsonSchema(SCHEMA)], stop=['"nam'])[0]
    assert (stopped.text, stopped.finish_reason) == ("{", "stop")
