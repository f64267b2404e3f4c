"""The ``README.md`` of a checkpoint: how it was made and how well it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ventris.train.quality import Quality


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

{_facts(training)}"""


def own_vocabulary_card(target: str, command: str, training: Mapping[str, Any], share: float) -> str:
    """The same for a draft model with a vocabulary of its own.

    Args:
        target: Whose answers it learnt from.
        share: How often its first guess was the next token of held-out texts.
    """
    return f"""# A draft model that learnt from {target}

For the drafter `omnidraft` of Ventris, with a vocabulary of its own: for targets of any. The target decides
on each of its tokens, so with an exact verifier the output is the target's own.

    {command}

It guesses {share:.3f} of its own tokens right in held-out texts, prompts and answers alike.

{_facts(training)}"""


def _facts(training: Mapping[str, Any]) -> str:
    """How a checkpoint was made, as a table."""
    rows = "".join(f"| {name.replace('_', ' ')} | {value} |\n" for name, value in training.items())
    return f"| training | |\n| --- | --- |\n{rows}"


def tuned_card(target: str, heads: str, command: str, quality: Quality) -> str:
    """The same for a target that was tuned together with its heads.

    Args:
        target: What it was before.
        heads: Folder of the heads in its own.
    """
    return f"""# {target}, tuned to be guessed

A model of its own, tuned from {target} by low-rank changes that are merged into its weights, so that the
heads in `{heads}/` guess it better (Medusa-2). It says other things than {target} does:

| on held-out prompts | |
| --- | --- |
| KL from {target}, nats a token | {quality.kl:.4f} |
| places where both find the same token likeliest | {quality.agreement:.1%} |
| perplexity before | {quality.perplexity_before:.4f} |
| perplexity after | {quality.perplexity_after:.4f} ({quality.perplexity_ratio - 1:+.2%}) |

    {command}

The changes are small: blocks of 4 bits round them away, and blocks of 8 bits some of them. Load it as it is
stored.
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
