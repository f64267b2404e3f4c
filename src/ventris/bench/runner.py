"""``run_bench``: settings in, report out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from ventris.bench.batch import measure_batches
from ventris.bench.contestant import Contestant
from ventris.bench.machine import LoadWatch, load_warnings
from ventris.bench.methods import Method, parse_methods
from ventris.bench.own import OwnMethod
from ventris.bench.peers import open_peers, parse_peers
from ventris.bench.peers.base import PeerContext
from ventris.bench.prepare import describe, limits_of, load_model, longest_context, ready_threads, sampling_of
from ventris.bench.prompts import load_questions
from ventris.bench.question import Question
from ventris.bench.race import Progress, Race, asker
from ventris.bench.record import BatchRun, Entrant, ForwardCost, Report
from ventris.bench.settings import BenchSettings
from ventris.model import check_settings
from ventris.models.cache_folder import ready_folder
from ventris.options import read_generation_options

if TYPE_CHECKING:
    from ventris.model import Model


def run_bench(
    settings: BenchSettings,
    progress: Progress | None = None,
    model: Model | None = None,
    questions: Sequence[Question] | None = None,
) -> Report:
    """Measure methods and peers on the same prompts, in turn.

    Args:
        settings: What to measure. With ``out`` set, the report is written there as well.
        progress: Told what is running, how much is done, and how much there is.
        model: A loaded model instead of ``settings.model``.
        questions: Questions instead of ``settings.data``.

    Raises:
        BadInput, Incompatible: before anything is measured.
        VentrisError: if one of our own methods fails.
    """
    methods = [_with_policy(method, settings) for method in parse_methods(settings.methods)]
    peers = parse_peers(settings.peers)
    for method in methods:
        check_settings(read_generation_options({**_parts(method), "temperature": settings.temperature}))
    if questions is None:
        questions = load_questions(settings.data, settings.categories, settings.per_category)
    if settings.out is not None:
        ready_folder(settings.out)
    with ready_threads(settings) as threads:
        if model is None:
            model = load_model(settings, progress=progress)
        cost = _measured_cost(model, progress)
        own = [OwnMethod(model, method, sampling_of(settings)) for method in methods]
        context = PeerContext(
            model.source,
            threads,
            longest_context(questions, model, settings.max_new_tokens),
            settings.draft_model,
            settings.temperature == 0,
        )
        others, other_entrants = open_peers(peers, context)
        entrants = [*(method.entrant for method in own), *other_entrants]
        limits = limits_of(settings, model)
        contestants: list[Contestant] = [*own, *others]
        race = Race(contestants, asker(model.tokenizer), limits, model.target.context_length, progress)
        race.warm_up(asker(model.tokenizer)(questions[0]).prompt(0))
        environment = describe(model, threads)
        created, started, watch = datetime.now(UTC), perf_counter(), LoadWatch()
        runs = race.run(questions, settings.repeats)
        batches = _batches(settings, model, own, questions, progress)
        environment.load = watch.finish()
    _note_failures(entrants, race.failed)
    report = Report(
        created=created.isoformat(timespec="seconds"),
        seconds=perf_counter() - started,
        settings=_shown(settings),
        environment=environment,
        entrants=entrants,
        runs=runs,
        forward_cost=cost,
        batch_runs=batches,
        warnings=[*load_warnings(environment.load), *race.warnings, *broken_promises(entrants, race)],
    )
    if settings.out is not None:
        from ventris.bench.report.files import write_report

        write_report(report, settings.out)
    return report


def broken_promises(entrants: Sequence[Entrant], race: Race) -> list[str]:
    """Sentences about exact methods whose output was not plain decoding's."""
    promised = {entrant.name for entrant in entrants if entrant.promised}
    warnings = []
    for name in [entrant.name for entrant in entrants if entrant.name in promised]:
        wrong = [
            run
            for run in race.runs
            if run.contestant == name
            and run.same is False
            and not (run.difference is not None and run.difference.near_tie)
        ]
        if wrong:
            shown = ", ".join(dict.fromkeys(run.question for run in wrong[:3]))
            warnings.append(
                f"{name} promises plain decoding's tokens, but {len(wrong)} outputs differ beyond a near-tie "
                f"(questions {shown})"
            )
    return warnings


def _with_policy(method: Method, settings: BenchSettings) -> Method:
    if method.policy is not None or method.draft is None or settings.policy is None:
        return method
    return Method(method.name, method.draft, settings.policy, method.verifier, method.guides)


def _parts(method: Method) -> dict[str, object]:
    return {
        "draft": method.draft,
        "policy": method.policy,
        "verifier": method.verifier,
        "guides": method.guides,
    }


def _measured_cost(model: Model, progress: Progress | None) -> ForwardCost:
    """T(n), measured now: a curve taken while the machine was busy would mislead every policy."""
    if progress:
        progress("measuring the cost of a forward", 0, 1)
    curve = model.cost_curve(again=True)
    return ForwardCost(sizes=list(curve.sizes), seconds=list(curve.seconds))


def _batches(
    settings: BenchSettings,
    model: Model,
    own: Sequence[OwnMethod],
    questions: Sequence[Question],
    progress: Progress | None,
) -> list[BatchRun]:
    if settings.batch is None:
        return []
    ask = asker(model.tokenizer)
    room = model.target.context_length - settings.max_new_tokens
    prompts = [
        prompt for prompt in (ask(question).prompt(0) for question in questions) if len(prompt) <= room
    ]
    if not prompts:
        return []
    return measure_batches(own, prompts, settings.batch, settings.repeats, settings.max_new_tokens, progress)


def _note_failures(entrants: Sequence[Entrant], failed: dict[str, str]) -> None:
    for entrant in entrants:
        if entrant.name in failed:
            entrant.missing = failed[entrant.name]


def _shown(settings: BenchSettings) -> dict[str, object]:
    """The settings as they go into a report; of paths only the last part, for reports get passed on."""
    shown = settings.model_dump(exclude={"out"})
    for name in ("data", "model", "draft_model"):
        value = shown[name]
        if isinstance(value, str):
            shown[name] = Path(value).name if Path(value).exists() else value
    return shown
