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


def judge_card(target: str, command: str, training: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """The same for a judge of drafted tokens.

    Args:
        measured: As :class:`~ventris.train.judge.JudgeTrained` has it.
    """
    facts = "\n".join(
        f"| {name.replace('_', ' ')} | {value} |" for name, value in training.items() if name != "settings"
    )
    sweep = "\n".join(f"| {t:g} | {passed:.3f} | {caught:.3f} |" for t, passed, caught in measured["sweep"])
    areas = "\n".join(f"| {family} | {area:.3f} |" for family, area in measured["areas"].items())
    return f"""# A judge of drafted tokens for {target}

For the verifier `judge` of Ventris: drafted tokens that the target would have put otherwise are kept where
this unit finds them right. The output is approximate, and nothing protects what the target was tuned to
refuse.

    {command}

On questions held out the area under the ROC curve is {measured["area"]:.3f}; above the threshold
{measured["threshold"]:.4f} pass {measured["passed"]:.1%} of the right tokens, and {measured["caught"]:.1%} of
the wrong ones do not.

| threshold | right tokens passed | wrong tokens caught |
| --- | --- | --- |
{sweep}

| family | area under the ROC curve |
| --- | --- |
{areas}

| training | |
| --- | --- |
{facts}
"""
