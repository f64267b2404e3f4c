"""What form costs and saves, as ratios of methods that take turns in one process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ventris.bench.claims.claim import Claim
from ventris.bench.prepare import load_model, ready_threads
from ventris.bench.race import Progress
from ventris.bench.schedule import rotated
from ventris.bench.statistics import Ratio, median_ratio
from ventris.bench.structured import words
from ventris.bench.structured.back_ends import LM_ONLY
from ventris.bench.structured.cases import read_cases
from ventris.bench.structured.end_to_end import plan
from ventris.bench.structured.record import Findings, Table
from ventris.bench.structured.settings import StructuredSettings
from ventris.engine.errors import BadInput, VentrisError
from ventris.guide import JsonSchema

if TYPE_CHECKING:
    from ventris.model import Model

UNGUIDED, GUIDED, FORCED = "unguided", "guided", "guided, forced text"
NGRAM, NGRAM_FORCED, UNPRUNED = "n-gram", "n-gram, forced text", "n-gram, not pruned"

FEWEST_STEPS = 12
"""Documents of fewer tokens are too short for a median of their steps."""


@dataclass(frozen=True, slots=True)
class Method:
    """One way to decode.

    Attributes:
        forced: Draft text that must come next.
        pruned: Drop drafts that the mask forbids before the target scores them.
    """

    name: str
    guided: bool = True
    forced: bool = False
    draft: str | None = None
    pruned: bool = True


METHODS = (
    Method(UNGUIDED, guided=False),
    Method(GUIDED),
    Method(FORCED, forced=True),
    Method(NGRAM, draft="ngram"),
    Method(NGRAM_FORCED, forced=True, draft="ngram"),
    Method(UNPRUNED, draft="ngram", pruned=False),
)


class Timed(BaseModel):
    """One prompt decoded once.

    Attributes:
        step_seconds: Median of the steps behind the first token.
        token_seconds: Decode time a token behind the first.
        guide_seconds: Of a step, as the engine counts it.
    """

    schema_name: str
    method: str
    repeat: int
    tokens: int
    steps: int
    step_seconds: float
    token_seconds: float
    guide_seconds: float
    drafted: int
    accepted: int


class Unpruned:
    """A guide without the pruning of drafts, to measure what pruning is worth."""

    def __init__(self, guide: Any) -> None:
        self._guide = guide

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guide, name)

    def bind(self, tokenizer: Any) -> Unpruned:
        return Unpruned(self._guide.bind(tokenizer))

    def start(self, request: Any) -> Any:
        return _UnprunedState(self._guide.start(request))


class _UnprunedState:
    def __init__(self, state: Any) -> None:
        self._state = state

    def __getattr__(self, name: str) -> Any:
        if name == "prune":
            raise AttributeError(name)
        return getattr(self._state, name)


def measure_cost(
    settings: StructuredSettings, limit: int, progress: Progress, model: Model | None = None
) -> tuple[Findings, list[dict[str, Any]]]:
    """Decode the prompts of the end-to-end protocol by every method in turn.

    Raises:
        BadInput: if no document is long enough.
    """
    with ready_threads(settings):
        model = model or load_model(settings)
        runs = _race(settings, limit, progress, model)
    if not runs:
        raise BadInput(
            "no schema gave a document that is long enough to be timed; raise limit or max_new_tokens"
        )
    return cost_findings(runs, settings.seed), [run.model_dump() for run in runs]


def _race(settings: StructuredSettings, limit: int, progress: Progress, model: Model) -> list[Timed]:
    whitespace = settings.whitespace or "compact"
    assert model.tokenizer is not None
    asked = plan(
        read_cases(settings.data),
        [LM_ONLY],
        model.tokenizer,
        limit,
        settings.seed,
        whitespace,
        settings.max_prompt_tokens,
    )
    total = len(asked.tasks) * settings.repeats * len(METHODS)
    runs: list[Timed] = []
    # The policy of drafting measures the model once, which must not fall into a timed run.
    model.cost_curve()
    for turn, task in enumerate(asked.tasks):
        name, prompt = task.case.name, list(task.messages)
        try:
            guides = {m.name: _guides(m, task.case.json_schema, whitespace, model) for m in METHODS}
            tokens = _decode(
                model, METHODS[1], guides[GUIDED], prompt, settings.max_new_tokens, name, 0
            ).tokens
        except VentrisError:
            continue
        if tokens < FEWEST_STEPS:
            continue
        for repeat in range(settings.repeats):
            for place, method in enumerate(rotated(METHODS, turn + repeat)):
                done = (turn * settings.repeats + repeat) * len(METHODS) + place
                progress(f"{name}: {method.name}", done, total)
                runs.append(_decode(model, method, guides[method.name], prompt, tokens, name, repeat))
    progress("done", total, total)
    return runs


def _guides(method: Method, schema: Any, whitespace: Any, model: Model) -> list[Any]:
    if not method.guided:
        return []
    guide = JsonSchema(schema, whitespace=whitespace, forced=method.forced).bind(model.tokenizer)
    return [guide if method.pruned else Unpruned(guide)]


def _decode(
    model: Model, method: Method, guides: list[Any], prompt: Any, tokens: int, name: str, repeat: int
) -> Timed:
    """Decode at most ``tokens``; without a guide exactly so many, so that contexts are as long."""
    request = model.request(
        prompt, guides=guides, draft=method.draft, max_new_tokens=tokens, ignore_eos=not method.guided
    )
    if method.guided and model.tokenizer is not None:
        request.end_ids = frozenset(model.tokenizer.eos_ids)
    engine = model.engine(max_batch=1)
    completion = engine.add(request)
    steps: list[float] = []
    first = 0
    before: dict[str, float] = {}
    try:
        while engine.busy:
            started = perf_counter()
            engine.step()
            seconds = perf_counter() - started
            if first:
                steps.append(seconds)
            elif completion.tokens:
                first, before = len(completion.tokens), dict(completion.stats.seconds)
    finally:
        engine.close()
    if completion.exception is not None:
        raise completion.exception
    stats = completion.stats
    guide = stats.seconds.get("guide", 0.0) - before.get("guide", 0.0)
    return Timed(
        schema_name=name,
        method=method.name,
        repeat=repeat,
        tokens=len(completion.tokens),
        steps=len(steps),
        step_seconds=median(steps) if steps else 0.0,
        token_seconds=sum(steps) / max(len(completion.tokens) - first, 1),
        guide_seconds=guide / max(len(steps), 1),
        drafted=stats.drafted,
        accepted=stats.accepted,
    )


def cost_findings(runs: Sequence[Timed], seed: int) -> Findings:
    """The ratios with their intervals, and what is behind them."""
    claims = [
        _claim(
            "step",
            f"median step, {GUIDED} by {UNGUIDED}",
            _ratio(runs, GUIDED, UNGUIDED, "step_seconds", seed),
            1.03,
        ),
        _claim(
            "forced",
            f"time a token, {FORCED} by {GUIDED}",
            _ratio(runs, FORCED, GUIDED, "token_seconds", seed),
            0.85,
        ),
        _claim(
            "ngram",
            f"speed, {NGRAM} by {GUIDED}",
            _ratio(runs, GUIDED, NGRAM, "token_seconds", seed),
            1.3,
            "higher",
        ),
        _claim(
            "ngram-forced",
            f"speed, {NGRAM_FORCED} by {FORCED}",
            _ratio(runs, FORCED, NGRAM_FORCED, "token_seconds", seed),
            1.0,
            "higher",
        ),
        _claim(
            "both",
            f"speed, {NGRAM_FORCED} by {GUIDED}",
            _ratio(runs, GUIDED, NGRAM_FORCED, "token_seconds", seed),
            1.3,
            "higher",
        ),
        _claim(
            "pruning",
            f"speed, {NGRAM} by {UNPRUNED}",
            _ratio(runs, UNPRUNED, NGRAM, "token_seconds", seed),
            1.0,
            "higher",
        ),
    ]
    table = Table(
        title="What form costs and saves",
        heads=["ratio", "measured", "95 % interval", "target", ""],
        rows=[
            [
                c.title,
                c.shown_value,
                c.shown_interval,
                c.shown_target,
                c.verdict + (" (uncertain)" if c.uncertain else ""),
            ]
            for c in claims
        ],
        note="Medians over schemas and repeats; the methods take turns in one process, batch 1. The same "
        "number of tokens is decoded without the guide, so contexts are as long.",
    )
    found = {claim.name: claim.model_dump() for claim in claims}
    return Findings(headline=_headline(claims), tables=[table, _methods(runs)], figures=found)


def _claim(name: str, title: str, ratio: Ratio | None, target: float, better: Any = "lower") -> Claim:
    known: dict[str, Any] = (
        {} if ratio is None else {"value": ratio.median, "low": ratio.low, "high": ratio.high}
    )
    return Claim(name=name, title=title, better=better, target=target, **{"value": None, **known})


def _ratio(runs: Sequence[Timed], above: str, below: str, field: str, seed: int) -> Ratio | None:
    figures = {(run.schema_name, run.repeat, run.method): getattr(run, field) for run in runs}
    groups: dict[str, list[float]] = defaultdict(list)
    for (name, repeat, method), value in figures.items():
        other = figures.get((name, repeat, below))
        if method == above and other:
            groups[name].append(value / other)
    return median_ratio(list(groups.values()), seed)


def _methods(runs: Sequence[Timed]) -> Table:
    lines = []
    for method in METHODS:
        own = [run for run in runs if run.method == method.name]
        drafted = sum(run.drafted for run in own)
        steps = sum(run.steps for run in own)
        lines.append(
            [
                method.name,
                words.duration(median(run.step_seconds for run in own)),
                words.duration(median(run.token_seconds for run in own)),
                words.duration(median(run.guide_seconds for run in own)),
                f"{sum(run.tokens for run in own) / max(steps, 1):.2f}",
                str(drafted),
                words.share(sum(run.accepted for run in own), drafted),
            ]
        )
    heads = ["method", "step", "a token", "guide a step", "tokens a step", "drafted", "accepted"]
    return Table(
        title="The methods",
        heads=heads,
        rows=lines,
        note="Drafted: the drafter's tokens that the target scored; forced text is no guess.",
    )


def _headline(claims: Sequence[Claim]) -> str:
    shown = ", ".join(f"{claim.title} {claim.shown_value}" for claim in claims[:3])
    return f"{shown[0].upper()}{shown[1:]}."
