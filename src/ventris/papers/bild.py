"""Big Little Decoder's central claims: speed at little loss of quality, and what alignment brings.

Quality is the share of right answers to generated tasks. The small model is tuned twice from the same
weights: on the target's own answers to training tasks (the paper's aligned one) and on reference answers in
several wordings (unaligned). Each gets thresholds of its own, fitted on tasks that are neither trained on nor
shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from ventris.bench.methods import AUTOREGRESSIVE
from ventris.bench.prepare import load_model
from ventris.bench.question import Question
from ventris.bench.record import Run
from ventris.bench.runner import run_bench
from ventris.bench.settings import BenchSettings, read_settings
from ventris.bench.statistics import Ratio, median_ratio
from ventris.bench.summary import compare
from ventris.checked import checked_settings
from ventris.draft.checkpoint import find_checkpoint
from ventris.draft.target_sketch import TargetSketch
from ventris.engine.errors import BadInput
from ventris.engine.target import Target
from ventris.model import Model
from ventris.models.cache_folder import cache_folder
from ventris.papers.reproduction import Reproduction, Row
from ventris.papers.tuned_draft import tune
from ventris.train.fact_tasks import FactTask, fact_tasks, write_answers, write_questions
from ventris.train.scored import Outcome, ScoredTask, scored_facts
from ventris.train.threshold_settings import GridSettings
from ventris.train.thresholds import (
    Fitted,
    Thresholds,
    measure,
    read_thresholds,
    try_grid,
    write_thresholds,
)

FIGURE = (
    "1.34 to 1.85 times as fast as the large model alone at about its quality, up to 2.12 times for a point "
    "(T5, mT5); aligned 1.47 to 1.85, unaligned 1.34 to 1.71"
)

ARMS = ("aligned", "unaligned")

TEACHING: dict[str, Any] = {
    "shortlist": 2048,
    "temperatures": [0.0],
    "loss": "cross_entropy",
    "learning_rate": 5e-4,
    "batch": 16,
    "window": 320,
    "bfloat16": True,
}
"""How small models are tuned, unless said otherwise."""

EVERYTHING = 1e9
"""Nats within which every drafted token lies."""

LONGEST = 64
"""Tokens that the small model writes where nothing stops it: a whole answer of most tasks."""

NORMAL = 1.96
"""Standard errors from the middle of a normal distribution to the end of its 95 % interval."""


def reproduce_bild(
    drafts: Mapping[str, str] | None = None,
    thresholds: Mapping[str, str] | None = None,
    out: str | None = None,
    start: str | None = None,
    taught: int = 640,
    steps: int = 200,
    training: dict[str, Any] | None = None,
    fitted_on: int = 120,
    tasks: int = 240,
    raced: int = 60,
    repeats: int = 1,
    grid: bool = True,
    max_new_tokens: int = 64,
    confidences: Sequence[float] = (0.0, 0.3, 0.5, 0.7, 0.9),
    nats: Sequence[float] = (1.0, 2.0, 3.0, 5.0),
    loss: float = 1.0,
    **settings: Any,
) -> Reproduction:
    """Quality, tokens a call and speed of plain decoding, exact speculation and Big Little Decoder.

    Args:
        drafts: Small models by name, to be compared; when not given, two are tuned (kept for the next time).
        thresholds: For each of them a file from ``ventris train thresholds``; fitted here when not given.
        out: Folder for small models and fitted thresholds; in Ventris's own cache when not given.
        start: Folder of the draft model that both are tuned from; the one that comes with Ventris when not
            given.
        taught: Generated tasks that they are tuned on.
        steps: Optimiser steps of each tuning.
        training: Further settings of ``ventris train aligned``.
        fitted_on: Tasks that thresholds are fitted on, none of them in training.
        tasks: Further tasks, in neither, on which everything is shown.
        raced: So many of them are decoded alone and in turn, for the speeds; 0 for none.
        repeats: How often each is.
        grid: Whether the whole grid is measured on the shown tasks too, for the curve of quality and speed.
        max_new_tokens: Output tokens at most.
        confidences, nats: The grid of thresholds; 0 nats, which loses nothing, is always among them.
        loss: Points of quality that fitted thresholds may lose.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.

    Raises:
        BadInput: for settings that cannot be used, or thresholds without drafts of the same names.
    """
    started = perf_counter()
    chosen = read_settings({**settings, "max_new_tokens": max_new_tokens, "repeats": repeats})
    if thresholds is not None and set(thresholds) != set(drafts or ()):
        raise BadInput("thresholds belong to drafts; give both, by the same names")
    tried = {"confidences": list(confidences), "distances": list(nats), "loss": loss}
    plan = checked_settings(
        GridSettings, {**tried, "max_new_tokens": max_new_tokens}, "ventris train thresholds"
    )
    folder = Path(out).expanduser() if out else cache_folder() / "training" / "bild"
    model = load_model(chosen)
    both = fact_tasks(fitted_on + tasks, chosen.seed, "test")
    fitting, shown = scored_facts(both[:fitted_on]), scored_facts(both[fitted_on:])
    if drafts is None:
        given = {"steps": steps, "max_new_tokens": max_new_tokens, **(training or {})}
        drafts = _taught(folder, model.target, start, taught, chosen, given)
    if thresholds is None:
        thresholds = {name: str(folder / f"{name}.yaml") for name in drafts}
        for name, draft in drafts.items():
            write_thresholds(Path(thresholds[name]), try_grid(model, draft, fitting, plan), draft)
    pairs = {name: read_thresholds(path) for name, path in thresholds.items()}

    rows = _on_tasks(model, shown, plan, drafts, pairs, grid)
    if raced:
        rows += _race(model, pairs, both[fitted_on:][:raced], chosen)
    notes = [
        f"{chosen.model} in {getattr(model.target, 'dtype', '')} on {model.target.device.type}; {tasks} "
        f"generated tasks that are in no training, thresholds from {fitted_on} others",
        "exact speculation has the same small model and drafts up to the same confidence",
        *(f"{name}: {parts['policy']}, {parts['verifier']}" for name, parts in pairs.items()),
    ]
    return Reproduction("bild", FIGURE, rows, perf_counter() - started, notes)


def _taught(
    folder: Path, target: Target, start: str | None, taught: int, chosen: BenchSettings, given: dict[str, Any]
) -> dict[str, str]:
    """The small model tuned on the target's answers and on reference answers, made or found in a folder."""
    first = find_checkpoint("aligned", target, start)
    lessons, sketch = fact_tasks(taught, chosen.seed), TargetSketch.of(target, "").digest
    drafts = {}
    for name in ARMS:
        key = repr((sketch, str(first), taught, sorted(given.items()), chosen.seed, name))
        place = folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        drafts[name] = f'aligned:"{place}"'
        if (place / "config.json").is_file():
            continue
        data = folder / f"{place.name}.jsonl"
        if name == "aligned":
            write_questions(data, lessons)
        else:
            write_answers(data, lessons, seed=chosen.seed)
        tune(place, first, str(data), chosen, {**TEACHING, "threads": chosen.threads, **given})
    return drafts


def _on_tasks(
    model: Model,
    tasks: Sequence[ScoredTask],
    plan: GridSettings,
    drafts: Mapping[str, str],
    pairs: Mapping[str, dict[str, str]],
    grid: bool,
) -> list[Row]:
    """Quality and calls of everything."""
    plain = measure(model, tasks, plan)
    rows = [_quality("plain decoding", plain), _calls("plain decoding", plain)]
    fitted = {}
    for name, parts in pairs.items():
        exact = measure(model, tasks, plan, **{**parts, "verifier": "greedy"})
        fitted[name] = measure(model, tasks, plan, **parts)
        alone = measure(model, tasks, plan, **Thresholds(0.0, EVERYTHING, LONGEST).settings(drafts[name]))
        rows += _at_thresholds(name, fitted[name], plain, exact)
        rows.append(_quality(f"{name} with nothing refused; plain decoding", alone, plain))
    rows += _compared(fitted)
    if grid:
        for name, draft in drafts.items():
            rows += _curve(name, try_grid(model, draft, tasks, plan, plain=plain))
    return rows


def _quality(name: str, found: Outcome, plain: Outcome | None = None) -> Row:
    baseline = None if plain is None else plain.quality
    return Row(f"right answers, {name}", found.quality, "%", baseline, found.quality_error)


def _calls(name: str, found: Outcome, plain: Outcome | None = None) -> Row:
    baseline = None if plain is None else plain.calls_per_answer
    return Row(f"calls an answer, {name}", found.calls_per_answer, "calls", baseline, found.calls_error)


def _tokens(name: str, found: Outcome, exact: Outcome) -> Row:
    value, error = found.tokens_per_call, found.tokens_per_call_error
    return Row(f"tokens a call, {name}", value, "tokens", exact.tokens_per_call, error)


def _at_thresholds(name: str, found: Outcome, plain: Outcome, exact: Outcome) -> list[Row]:
    """A pair of models at its fitted thresholds."""
    lost, error = found.loss(plain)
    title = f"{name} at its thresholds"
    return [
        _quality(f"{title}; plain decoding", found, plain),
        Row(f"points lost, {title}", lost, "points", None, error),
        _calls(f"{title}; plain decoding", found, plain),
        _tokens(f"{title}; exact speculation", found, exact),
        Row(f"output written after hand-overs, {title}; exact", found.handed_over, "%", exact.handed_over),
        Row(f"output written after rollbacks, {title}; exact", found.rolled_back, "%", exact.rolled_back),
    ]


def _compared(found: Mapping[str, Outcome]) -> list[Row]:
    """The aligned small model against the other one, each at the thresholds that were fitted to it."""
    if not set(ARMS) <= set(found):
        return []
    aligned, other = (found[name] for name in ARMS)
    title = "output written by the target, aligned; unaligned"
    return [Row(title, 100 / aligned.tokens_per_call, "%", 100 / other.tokens_per_call)]


def _curve(name: str, fitted: Fitted) -> list[Row]:
    """The settings that no other beats in quality and estimated speed."""
    rows = []
    for pair in fitted.front():
        found, title = fitted.grid[pair], f"{name} at {pair}"
        rows += [
            _quality(f"{title}; plain decoding", found, fitted.plain),
            _tokens(f"{title}; best exact", found, fitted.grid[fitted.exact]),
            Row(
                f"estimated speed, {title}; best exact",
                fitted.costs.speed(found),
                "x",
                fitted.costs.speed(fitted.grid[fitted.exact]),
            ),
        ]
    return rows


def _race(
    model: Model, pairs: Mapping[str, dict[str, str]], tasks: Sequence[FactTask], chosen: BenchSettings
) -> list[Row]:
    """Speeds, each task decoded alone by all in turn."""
    methods: list[dict[str, Any]] = []
    for name, parts in pairs.items():
        exact = {**parts, "verifier": "greedy"}
        methods += [{"name": name, **parts}, {"name": f"{name}-exact", **exact}]
        methods.append({"name": f"{name}-goodput", "draft": parts["draft"]})
    questions = [Question(str(n), task.family, (task.question,)) for n, task in enumerate(tasks)]
    runs = run_bench(chosen.model_copy(update={"methods": methods}), model=model, questions=questions).runs
    return [
        Row(f"{what}, {method['name']}; plain decoding", ratio.median, "x", 1.0, _error(ratio))
        for what, ratios in (("tokens a second", compare), ("answers a second", _answers_a_second))
        for method in methods
        if (ratio := ratios(runs, method["name"], AUTOREGRESSIVE)) is not None
    ]


def _answers_a_second(runs: Sequence[Run], method: str, other: str) -> Ratio | None:
    """How many times as fast whole answers come, as the paper counts; the reading of prompts among it."""
    seconds = {
        (run.contestant, run.question, run.repeat): run.first_token_seconds + run.decode_seconds
        for run in runs
    }
    ratios: dict[str, list[float]] = {}
    for (contestant, question, repeat), spent in seconds.items():
        if contestant == method and (other, question, repeat) in seconds:
            ratios.setdefault(question, []).append(seconds[other, question, repeat] / spent)
    return median_ratio(list(ratios.values()))


def _error(ratio: Ratio) -> float | None:
    """Standard error that the bootstrap interval stands for."""
    if ratio.low is None or ratio.high is None:
        return None
    return (ratio.high - ratio.low) / (2 * NORMAL)
