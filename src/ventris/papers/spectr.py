"""SpecTr's central claim: more independent drafts, more tokens a pass, the same distribution."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from ventris.papers.on_prompts import OnPrompts, speed
from ventris.papers.reproduction import Reproduction, Row

FIGURE = (
    "2.13 times as fast as plain decoding and 1.37 times as fast as one draft (PaLM-2, 8 drafts of length 8)"
)


def reproduce_spectr(
    draft: str = "aligned",
    drafts: Sequence[int] = (1, 2, 4, 8),
    depth: int = 8,
    data: str | None = None,
    per_category: int | None = None,
    max_new_tokens: int = 128,
    repeats: int = 1,
    temperature: float = 1.0,
    **settings: Any,
) -> Reproduction:
    """Tokens a pass and speed with several drafts of a small model, against one.

    Args:
        draft: A drafter with the options ``samples`` and ``depth``: ``aligned``, or ``model:FOLDER``.
        drafts: How many continuations are drawn; the first is what the others are compared with.
        depth: Tokens of each.
        data: Prompts as JSONL; the built-in ones when not given.
        per_category: Prompts of each category; all when not given.
        max_new_tokens: Output tokens at most.
        repeats: How often each prompt is decoded for the speed.
        temperature: Of the draws.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.
    """
    started = perf_counter()
    measured = OnPrompts(
        data, per_category, max_new_tokens, repeats, {**settings, "temperature": temperature}
    )
    specs = {count: f"{draft},samples={count},depth={depth}" for count in drafts}
    passes = {
        count: measured.tokens_per_pass(spec, verifier="spectr", seed=0) for count, spec in specs.items()
    }
    report = measured.race([f"drafts-{count} = {spec} @ fixed | spectr" for count, spec in specs.items()])
    first, *more = drafts
    rows = [Row(f"tokens a pass with {first} draft", passes[first], "tokens")]
    rows += [
        Row(f"tokens a pass with {count} drafts, against {first}", passes[count], "tokens", passes[first])
        for count in more
    ]
    alone = speed(report, f"drafts-{first}")
    rows.append(Row(f"speed with {first} draft, as a multiple of plain decoding's", alone, "x"))
    rows += [
        Row(
            f"speed with {count} drafts, as a multiple of plain decoding's, against {first}",
            speed(report, f"drafts-{count}"),
            "x",
            alone,
        )
        for count in more
    ]
    return Reproduction(
        "spectr", FIGURE, rows, perf_counter() - started, measured.notes(f"drafts by {draft}")
    )
