"""What form costs and saves, in tables: ratios within a schema and a repeat, with intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

from ventris.bench.claims.claim import Claim
from ventris.bench.report import wording
from ventris.bench.statistics import Ratio, median_ratio
from ventris.bench.structured import words
from ventris.bench.structured.cost_methods import (
    FORCED,
    GUIDED,
    NGRAM,
    NGRAM_FORCED,
    UNGUIDED,
    Method,
    Timed,
    is_trained,
    unpruned,
)
from ventris.bench.structured.record import Findings, Table

TRAINED = "the best trained drafter"


def cost_findings(runs: Sequence[Timed], methods: Sequence[Method], seed: int) -> Findings:
    """The ratios with their intervals, and what is behind them."""
    drafts = list(dict.fromkeys(method.draft for method in methods if method.draft is not None))
    speeds = {draft: speed for draft in drafts if (speed := _speed(runs, GUIDED, draft, seed)) is not None}
    prunings = {draft: _speed(runs, unpruned(draft), draft, seed) for draft in drafts}
    best = max(filter(is_trained, speeds), key=lambda draft: speeds[draft].median, default=None)
    trained = best or TRAINED
    step = _ratio(runs, GUIDED, UNGUIDED, "step_seconds", seed)
    forced = _ratio(runs, FORCED, GUIDED, "token_seconds", seed)
    further, both = _speed(runs, FORCED, NGRAM_FORCED, seed), _speed(runs, GUIDED, NGRAM_FORCED, seed)
    claims = [
        _claim("step", f"median step, {GUIDED} by {UNGUIDED}", step, 1.03, "lower"),
        _claim("forced", f"time a token, {FORCED} by {GUIDED}", forced, 0.85, "lower"),
        _claim("ngram", f"speed, {NGRAM} by {GUIDED}", speeds.get(NGRAM), 1.3),
        _claim("trained", f"speed, {trained} by {GUIDED}", speeds.get(trained), 1.3),
        _claim("ngram-forced", f"speed, {NGRAM_FORCED} by {FORCED}", further, 1.0),
        _claim("both", f"speed, {NGRAM_FORCED} by {GUIDED}", both, 1.3),
        _claim("pruning", f"speed, {NGRAM} by {unpruned(NGRAM)}", prunings.get(NGRAM), 1.0),
    ]
    ratios = Table(
        title="What form costs and saves",
        heads=["ratio", "measured", "95 % interval", "target", ""],
        rows=[
            [
                claim.title,
                claim.shown_value,
                claim.shown_interval,
                claim.shown_target,
                claim.verdict + (" (uncertain)" if claim.uncertain else ""),
            ]
            for claim in claims
        ],
        note="Medians over schemas and repeats; the methods take turns in one process, batch 1. The same "
        "number of tokens is decoded without the guide, so contexts are as long." + _forced_share(runs),
    )
    found: dict[str, Any] = {claim.name: claim.model_dump() for claim in claims}
    found["drafters"] = {draft: _figures(runs, draft, speeds, prunings) for draft in drafts}
    drafters = _drafters(runs, drafts, speeds, prunings)
    return Findings(
        headline=_headline(claims), tables=[ratios, drafters, _methods(runs, methods)], figures=found
    )


def _claim(name: str, title: str, ratio: Ratio | None, target: float, better: Any = "higher") -> Claim:
    known: dict[str, Any] = (
        {} if ratio is None else {"value": ratio.median, "low": ratio.low, "high": ratio.high}
    )
    return Claim(name=name, title=title, better=better, target=target, **{"value": None, **known})


def _forced_share(runs: Sequence[Timed]) -> str:
    """How much there was to gain by forced text: without drafts all that a step adds beyond one token."""
    shares = [1 - run.steps / run.tokens for run in runs if run.method == FORCED]
    return f" Forced text was {median(shares):.0%} of the tokens of the median schema." if shares else ""


def _speed(runs: Sequence[Timed], slow: str, fast: str, seed: int) -> Ratio | None:
    """How much faster ``fast`` makes a token than ``slow``."""
    return _ratio(runs, slow, fast, "token_seconds", seed)


def _ratio(runs: Sequence[Timed], above: str, below: str, field: str, seed: int) -> Ratio | None:
    figures = {(run.schema_name, run.repeat, run.method): getattr(run, field) for run in runs}
    groups: dict[str, list[float]] = defaultdict(list)
    for (name, repeat, method), value in figures.items():
        other = figures.get((name, repeat, below))
        if method == above and other:
            groups[name].append(value / other)
    return median_ratio(list(groups.values()), seed)


def _counts(runs: Sequence[Timed], method: str) -> tuple[int, int]:
    """Drafted tokens that the target scored, and those of them that it accepted."""
    own = [run for run in runs if run.method == method]
    return sum(run.drafted for run in own), sum(run.accepted for run in own)


def _figures(
    runs: Sequence[Timed], draft: str, speeds: dict[str, Ratio], prunings: dict[str, Ratio | None]
) -> dict[str, Any]:
    speed, pruning = speeds.get(draft), prunings[draft]
    drafted, accepted = _counts(runs, draft)
    drafted_unpruned, accepted_unpruned = _counts(runs, unpruned(draft))
    return {
        "speed": speed and speed.median,
        "speed_by_unpruned": pruning and pruning.median,
        "drafted": drafted,
        "accepted": accepted,
        "drafted_unpruned": drafted_unpruned,
        "accepted_unpruned": accepted_unpruned,
    }


def _drafters(
    runs: Sequence[Timed],
    drafts: Sequence[str],
    speeds: dict[str, Ratio],
    prunings: dict[str, Ratio | None],
) -> Table:
    rows = []
    for draft in drafts:
        drafted, accepted = _counts(runs, draft)
        all_drafted, all_accepted = _counts(runs, unpruned(draft))
        rows.append(
            [
                draft,
                wording.ratio(speeds.get(draft)),
                wording.ratio(prunings[draft]),
                str(drafted),
                words.share(accepted, drafted),
                str(all_drafted),
                words.share(all_accepted, all_drafted),
            ]
        )
    return Table(
        title="Drafters under the guide",
        heads=["drafter", "speed", "by not pruned", "drafted", "accepted", "drafted, not pruned", "accepted"],
        rows=rows,
        note=f"Speed: by {GUIDED}, without drafts; no forced text. Drafted: the drafter's tokens that the "
        "target scored.",
    )


def _methods(runs: Sequence[Timed], methods: Sequence[Method]) -> Table:
    rows = []
    for method in methods:
        own = [run for run in runs if run.method == method.name]
        drafted, accepted = _counts(runs, method.name)
        steps = sum(run.steps for run in own)
        rows.append(
            [
                method.name,
                words.duration(median(run.step_seconds for run in own)),
                words.duration(median(run.token_seconds for run in own)),
                words.duration(median(run.guide_seconds for run in own)),
                f"{sum(run.tokens for run in own) / max(steps, 1):.2f}",
                str(drafted),
                words.share(accepted, drafted),
            ]
        )
    heads = ["method", "step", "a token", "guide a step", "tokens a step", "drafted", "accepted"]
    return Table(
        title="The methods",
        heads=heads,
        rows=rows,
        note="Drafted: the drafter's tokens that the target scored; forced text is no guess.",
    )


def _headline(claims: Sequence[Claim]) -> str:
    shown = ", ".join(f"{claim.title} {claim.shown_value}" for claim in claims[:4])
    return f"{shown[0].upper()}{shown[1:]}."
