"""Every drafter under every form of answer: the same ids as undrafted decoding, alone and in a batch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ventris.draft import DraftModel, NGram, Stack
from ventris.engine.request import Completion
from ventris.guide import Choice, Grammar, HardGuide, JsonSchema, Regex
from ventris.testing.checks import run
from ventris.testing.toy import ToyTarget
from ventris.testing.vocabularies import translating_drafter
from ventris.verify import Coupled, Greedy

for folder in ("draft", "torch_decoder", "native"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 3}, "ok": {"type": "boolean"}},
    "required": ["name", "ok"],
    "additionalProperties": False,
}
FORMS: dict[str, Callable[[], HardGuide]] = {
    "JSON schema": lambda: JsonSchema(SCHEMA),
    "regex": lambda: Regex("(red|12)( a)*(name: (true|ab)){1,3}"),
    "choice": lambda: Choice(["red name", "red true", "12 ab"]),
    "grammar": lambda: Grammar('start: item ("," item)*\nitem: "name" | "[" start "]"'),
}
SETTINGS: dict[str, dict[str, Any]] = {"temperature 0": {}, "temperature 1": {"temperature": 1.0, "seed": 3}}
PROMPTS = [[1, 2, 3, 1, 2], [4, 5], [60] * 20, [7, 8, 7, 8], [9], [1, 2, 3], [50, 50, 60], [90] * 9]
TOKENS = 20


class AsciiTokenizer:
    """An end token and the 95 printable characters of ASCII."""

    vocabulary_bytes = (b"<end>", *(bytes([code]) for code in range(32, 127)))
    vocab_size = 96
    eos_ids = (0,)
    special_ids = frozenset({0})
    fingerprint = "ascii"

    def encode(self, text: str) -> list[int]:
        return [ord(character) - 31 for character in text]


@cache
def _place() -> Any:
    from trained import torch_place

    return torch_place(listed=96)


def target() -> Any:
    return _place().target


def _trained(kind: str) -> Any:
    from trained import drafter_of

    return drafter_of(kind, _place())


def _draft_model() -> Any:
    import random_heads

    return DraftModel(random_heads.tiny_target(seed=1))


def _translated() -> Any:
    """Drafts in single characters and pairs of letters; the target has no pairs."""
    letters = ["Ġ", *map(chr, range(33, 127))]
    pairs = [one + other for one in "aenr" for other in "aemt"]
    draft = ToyTarget(1 + len(letters) + len(pairs), memory=2, sharpness=5.0)
    return translating_drafter(
        draft, [*letters, *pairs], letters, special=["<end>"], target_size=target().vocab_size
    )


DRAFTERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "ngram": NGram,
    "model": _draft_model,
    "medusa": lambda: _trained("medusa"),
    "hydra": lambda: _trained("hydra"),
    "eagle": lambda: _trained("eagle"),
    "aligned": lambda: _trained("aligned"),
    "kangaroo": lambda: _trained("kangaroo"),
    "falcon": lambda: _trained("falcon"),
    "chimera": lambda: _trained("chimera"),
    "longspec": lambda: _trained("longspec"),
    "omnidraft": _translated,
    "ngram,hydra": lambda: Stack([NGram(), _trained("hydra")]),
}


@cache
def drafter(name: str) -> Any:
    """One drafter serves all requests."""
    return DRAFTERS[name]()


@cache
def guide(form: str, forced: bool) -> HardGuide:
    tokenizer: Any = AsciiTokenizer()
    made = FORMS[form]()
    made.forced = forced
    return made.bind(tokenizer)


def decode(
    form: str, setting: str, draft: str, prompts: list[list[int]], forced: bool = True
) -> list[Completion]:
    settings = SETTINGS[setting]
    verifier = Coupled() if settings else Greedy()
    guides = [guide(form, forced)]
    return run(target(), verifier, drafter(draft), guides, prompts, TOKENS, [0], **settings)


@cache
def undrafted(form: str, setting: str) -> list[list[int]]:
    """Without drafts, without forced text, one by one."""
    return [decode(form, setting, "none", [prompt], forced=False)[0].tokens for prompt in PROMPTS]


def cells() -> Iterator[tuple[str, str, str]]:
    for draft in DRAFTERS:
        for form in FORMS:
            for setting in SETTINGS:
                yield draft, form, setting


def outcome(draft: str, form: str, setting: str) -> str:
    """``same ids``, alone and in a batch.

    Raises:
        AssertionError: naming the combination.
    """
    for prompts in (PROMPTS[:1], PROMPTS):
        done = decode(form, setting, draft, prompts)
        expected = undrafted(form, setting)[: len(prompts)]
        assert [completion.tokens for completion in done] == expected, (draft, form, setting, len(prompts))
        assert all(completion.valid for completion in done if completion.finish_reason == "stop")
    return "same ids"


def render(results: dict[tuple[str, str, str], str]) -> str:
    """A section of the page: drafters down, forms across."""
    lines = [
        "## Under a form",
        "",
        "Hard guides with forced text, greedy and with the coupled verifier at temperature 1, alone and in a",
        "batch of 8, compared with undrafted decoding one by one without forced text. What is trained",
        "elsewhere is random here.",
        "",
        f"| drafter | {' | '.join(FORMS)} |",
        "| --- " * (len(FORMS) + 1) + "|",
    ]
    for draft in DRAFTERS:
        found = [{results[draft, form, setting] for setting in SETTINGS} for form in FORMS]
        lines.append(f"| `{draft}` | {' | '.join(', '.join(sorted(each)) for each in found)} |")
    return "\n".join([*lines, ""])
