"""The embedded model under guides; skipped where it is not in the cache."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

import ventris
from ventris.guide import JsonSchema

INVOICE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "customer": {"type": "string", "maxLength": 40},
        "items": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": 30},
                    "quantity": {"type": "integer", "minimum": 1, "maximum": 99},
                },
                "required": ["name", "quantity"],
                "additionalProperties": False,
            },
        },
        "total": {"type": "integer", "minimum": 0, "maximum": 9999},
    },
    "required": ["customer", "items", "total"],
    "additionalProperties": False,
}
PROMPT = "Write an invoice for 3 chairs"


@pytest.fixture(scope="module")
def model() -> Any:
    from ventris.models.cache_folder import cache_folder
    from ventris.models.embedded import EMBEDDED_NAME, FILE_NAME, is_verified

    if not is_verified(cache_folder() / "models" / EMBEDDED_NAME / FILE_NAME):
        pytest.skip("the embedded model is not in the cache; load smollm2-135m-instruct once to have it")
    return ventris.load()


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "seed": 2, "verifier": "coupled"}])
def test_an_invoice_finishes_and_drafts_change_nothing(model: Any, settings: dict[str, Any]) -> None:
    plain = model.generate(PROMPT, guides=[JsonSchema(INVOICE, forced=False)], max_new_tokens=160, **settings)
    assert plain.finish_reason == "stop"
    assert plain.valid is True
    jsonschema.validate(json.loads(plain.text), INVOICE)
    for draft in (None, "ngram"):
        drafted = model.generate(
            PROMPT, guides=[JsonSchema(INVOICE)], draft=draft, max_new_tokens=160, **settings
        )
        assert drafted.tokens == plain.tokens
        assert drafted.stats.steps < plain.stats.steps


def test_guides_by_name(model: Any) -> None:
    done = model.generate("Is the sky blue?", guides="choice:yes|no", max_new_tokens=8)
    assert done.text in ("yes", "no")
    done = model.generate("A year:", guides=["regex:[0-9]{4}"], max_new_tokens=8)
    assert done.text.isdigit()
    assert len(done.text) == 4


def test_a_guide_scores(model: Any) -> None:
    scores = model.score("Is the sky blue? ", "no", guides="choice:yes|no")
    assert len(scores) == 1
    assert scores[0] < 0
    assert model.score("Is the sky blue? ", "maybe", guides="choice:yes|no")[0] == float("-inf")
