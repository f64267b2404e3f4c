"""Real prompts for the long suite: Spec-Bench where it lies beside the checkout, else our own."""

from __future__ import annotations

import json
from pathlib import Path

SPEC_BENCH = Path(__file__).parents[3] / "shared" / "data" / "spec_bench" / "dev.jsonl"


def real_prompts(count: int) -> list[str]:
    """``count`` prompts spread over all categories."""
    if SPEC_BENCH.exists():
        rows = [json.loads(line) for line in SPEC_BENCH.read_text().splitlines()]
        stride = max(len(rows) // count, 1)
        return [row["turns"][0] for row in rows[::stride]][:count]
    from ventris.bench.builtin import QUESTIONS

    texts = [question.turns[0] for question in QUESTIONS]
    return [texts[index % len(texts)] + " " * (index // len(texts)) for index in range(count)]
