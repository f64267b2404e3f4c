"""OmniDraft beside the real model: ten thousand texts byte for byte, and learning that changes no output."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

import ventris
from ventris.draft.omnidraft.byte_map import ByteMap
from ventris.engine.errors import VentrisError
from ventris.model import EMBEDDED_MODEL
from ventris.models.source import resolve
from ventris.models.tokenizer import Tokenizer

from .real_prompts import real_prompts

sys.path.insert(0, str(Path(__file__).parents[1] / "draft"))
from two_vocabularies import write_draft_model

pytestmark = pytest.mark.long

PARTS = [
    *("the stamps ", "of", " harbour", "  ", "\n\n", "\t", "def f(x):\n    return x", "{}[]()", "3.14159"),
    *(
        "東京",
        "の天気",
        "Grüße",
        "naïve",
        "🙂",
        "👩‍👩‍👧",
        "e\u0301",
        "\u00a0",
        "Ж",
        "ﬁ",
        "<|im_start|>",
        "\r\n",
    ),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    try:
        return resolve(EMBEDDED_MODEL).tokenizer
    except VentrisError as error:
        pytest.skip(f"the embedded model cannot be loaded here: {error}")


@pytest.mark.parametrize("kind", ["small", "large", "no words", "sentence piece", "changes text"])
def test_ten_thousand_texts_come_through_byte_for_byte(tokenizer, kind):
    from test_omnidraft_vocabularies import KINDS

    draft = KINDS[kind]
    map = ByteMap(draft, tokenizer, draft.vocab_size, tokenizer.vocab_size)
    chosen = random.Random(5)
    for _ in range(2_000):
        text = "".join(chosen.choices(PARTS, k=chosen.randint(0, 6)))
        said = tokenizer.encode(text)
        assert map.bytes_of(id for token in said for id in map.spell(token)) == text.encode()
        read = map.read(said)
        assert map.bytes_of(read[1:] if draft.facts.add_bos else read) == text.encode()


def test_learning_changes_no_output_of_the_real_model(tmp_path):
    try:
        model = ventris.load(threads=1)
    except VentrisError as error:
        pytest.skip(f"the embedded model cannot be loaded here: {error}")
    folder = write_draft_model(tmp_path / "draft")
    draft = f'omnidraft:"{folder}",learn=between,memory="{tmp_path / "memory"}"'
    for prompt in real_prompts(4):
        for settings in ({}, {"temperature": 1.0, "seed": 2}):
            plain = model.generate(prompt, max_new_tokens=64, **settings)
            drafted = model.generate(prompt, max_new_tokens=64, draft=draft, policy="fixed", **settings)
            assert drafted.tokens == plain.tokens
            assert drafted.guarantee.exact
    assert model._shared[f"draft {draft}"].teaching.steps > 4
