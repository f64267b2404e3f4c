"""What form costs and saves, as ratios of methods that take turns in one process."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ventris.bench.prepare import load_model, ready_threads
from ventris.bench.race import Progress
from ventris.bench.schedule import rotated
from ventris.bench.structured.back_ends import LM_ONLY
from ventris.bench.structured.cases import read_cases
from ventris.bench.structured.cost_findings import cost_findings
from ventris.bench.structured.cost_methods import GUIDED, Method, Timed, cost_methods, drafts_for
from ventris.bench.structured.end_to_end import plan
from ventris.bench.structured.record import Findings
from ventris.bench.structured.settings import StructuredSettings
from ventris.engine.errors import BadInput, VentrisError
from ventris.guide import JsonSchema

if TYPE_CHECKING:
    from ventris.model import Model

FEWEST_STEPS = 12
"""Documents of fewer tokens are too short for a median of their steps."""


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
        BadInput: if a drafter that was named cannot be had, or no document is long enough.
    """
    with ready_threads(settings):
        model = model or load_model(settings)
        drafts, missing = drafts_for(model.workshop, settings.drafts)
        methods = cost_methods(drafts)
        runs = _race(settings, limit, progress, model, methods)
    if not runs:
        raise BadInput(
            "no schema gave a document that is long enough to be timed; raise limit or max_new_tokens"
        )
    findings = cost_findings(runs, methods, settings.seed)
    findings.warnings += [f"there is no row for {name}: {reason}" for name, reason in missing.items()]
    return findings, [run.model_dump() for run in runs]


def _race(
    settings: StructuredSettings, limit: int, progress: Progress, model: Model, methods: Sequence[Method]
) -> list[Timed]:
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
    total = len(asked.tasks) * settings.repeats * len(methods)
    (plain,) = (method for method in methods if method.name == GUIDED)
    runs: list[Timed] = []
    # The policy of drafting measures the model once, which must not fall into a timed run.
    model.cost_curve()
    for turn, task in enumerate(asked.tasks):
        name, prompt = task.case.name, list(task.messages)
        try:
            guides = {m.name: _guides(m, task.case.json_schema, whitespace, model) for m in methods}
            tokens = _decode(model, plain, guides[GUIDED], prompt, settings.max_new_tokens, name, 0).tokens
        except VentrisError:
            continue
        if tokens < FEWEST_STEPS:
            continue
        for repeat in range(settings.repeats):
            for place, method in enumerate(rotated(methods, turn + repeat)):
                done = (turn * settings.repeats + repeat) * len(methods) + place
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
