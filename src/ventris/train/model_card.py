"""The ``README.md`` of a checkpoint: how it was made and how well it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def model_card(
    method: str, target: str, command: str, training: Mapping[str, Any], acceptance: Sequence[float]
) -> str:
    """Markdown for people; the same facts are in ``config.json`` for programs.

    Args:
        acceptance: Held-out acceptance of a chain of best guesses, by depth.
    """
    depths = " | ".join(str(depth) for depth in range(1, len(acceptance) + 1))
    rule = " | ".join("---" for _ in acceptance)
    shares = " | ".join(f"{share:.3f}" for share in acceptance)
    facts = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in training.items())
    return f"""# {method} heads for {target}

Draft heads for Ventris. They guess tokens and the target decides on each, so with an exact verifier the
output is the target's own, whatever the heads say.

    {command}

| depth | {depths} |
| --- | {rule} |
| acceptance on held-out prompts | {shares} |

Acceptance is that of a chain of best guesses: how often the guess at a depth is the target's token, once
all guesses above were. Held-out prompts were never trained on; where texts were answered greedily, those
are measured.

| training | |
| --- | --- |
{facts}
"""
