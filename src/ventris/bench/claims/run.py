"""One interleaved run for all promises: both number formats, both peers, drafts and a trace."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from ventris.bench.batch import measure_batches
from ventris.bench.claims.claim import Claim, ClaimsReport
from ventris.bench.claims.promises import (
    BATCH,
    BFLOAT16,
    COPYING,
    INT4,
    INT4_A8,
    PROMISES,
    TRACED,
    Measured,
    ngram,
)
from ventris.bench.claims.startup import StartupFailed, first_token_seconds
from ventris.bench.contestant import Contestant
from ventris.bench.machine import LoadWatch, load_warnings
from ventris.bench.methods import Method
from ventris.bench.own import OwnMethod
from ventris.bench.peers import open_peers, parse_peers
from ventris.bench.peers.base import PeerContext
from ventris.bench.prepare import describe, limits_of, load_model, longest_context, ready_threads
from ventris.bench.prompts import load_questions
from ventris.bench.race import Progress, Race, asker
from ventris.bench.record import BatchRun, Environment, ForwardCost
from ventris.bench.settings import BenchSettings
from ventris.engine.errors import BadInput
from ventris.models.cache_folder import ready_folder, written_whole

if TYPE_CHECKING:
    from ventris.model import Model
    from ventris.models.load import DType

PER_CATEGORY = 2
"""Prompts of each category when the settings do not say."""

COPYING_PER_CATEGORY = 40
"""The same where answers copy from the prompt: they differ so much that a few prompts tell little."""

PEERS = ["transformers", "llama.cpp"]
DTYPES: tuple[DType, ...] = ("bfloat16", "int4-a8", "int4")


def run_claims(settings: BenchSettings, progress: Progress | None = None) -> list[Claim]:
    """Measure all promises.

    Of the settings, methods, policy, peers, dtype and temperature do not count: the promises name theirs.
    With ``out`` set, ``claims.json`` is written there.

    Raises:
        BadInput: if the prompts or the model cannot be used.
    """
    return measure_claims(settings, progress).claims


def measure_claims(settings: BenchSettings, progress: Progress | None = None) -> ClaimsReport:
    """As :func:`run_claims`, with the runs behind the figures."""
    created, started = datetime.now(UTC), perf_counter()
    per_category = settings.per_category or PER_CATEGORY
    questions = load_questions(settings.data, settings.categories, per_category)
    copying = [
        question
        for question in load_questions(
            settings.data, settings.categories, settings.per_category or COPYING_PER_CATEGORY
        )
        if question.category in COPYING
    ]
    if settings.out is not None:
        ready_folder(settings.out)
    with ready_threads(settings) as threads:
        lineup = _line_up(settings, threads, progress)
        model = lineup.model
        context = longest_context([*questions, *copying], model, settings.max_new_tokens)
        peers, entrants = open_peers(parse_peers(PEERS), PeerContext(model.source, threads, context))
        lineup.missing |= {entrant.name: entrant.missing for entrant in entrants if entrant.missing}
        ask = asker(model.tokenizer)
        contestants: list[Contestant] = [*lineup.methods, *peers]
        limits, longest = limits_of(settings, model), model.target.context_length
        race = Race(contestants, ask, limits, longest, progress)
        race.warm_up(ask(questions[0]).prompt(0))
        watch = LoadWatch()
        race.run(questions, settings.repeats)
        untraced = [method for method in lineup.methods if method.name != TRACED]
        copying_race = Race(untraced, ask, limits, longest, progress)
        copying_race.run(copying, 1)
        prompts = [ask(question).prompt(0) for question in questions]
        plain = [method for method in lineup.methods if method.name in (BFLOAT16, INT4_A8, INT4)]
        short = sorted(prompts, key=len)[:BATCH]
        batch_runs: list[BatchRun] = measure_batches(
            plain, short, BATCH, settings.repeats, settings.max_new_tokens, progress
        )
        load = watch.finish()
    startups = _startups(settings, lineup.missing, progress)
    lineup.missing |= race.failed | copying_race.failed
    measured = Measured(
        race.runs,
        copying_race.runs,
        batch_runs,
        lineup.costs,
        startups,
        lineup.missing,
        settings.seed,
    )
    for environment in lineup.environments.values():
        environment.load = load
    report = ClaimsReport(
        created=created.isoformat(timespec="seconds"),
        seconds=perf_counter() - started,
        claims=[promise(measured) for promise in PROMISES],
        environments=lineup.environments,
        missing=lineup.missing,
        runs=race.runs,
        copying_runs=copying_race.runs,
        batch_runs=batch_runs,
        forward_costs=lineup.costs,
        first_token_seconds=startups,
        warnings=[*load_warnings(load), *race.warnings, *copying_race.warnings],
    )
    if settings.out is not None:
        write_claims(report, settings.out)
    return report


def write_claims(report: ClaimsReport, folder: str | Path) -> Path:
    """Write ``claims.json``, whole or not at all.

    Raises:
        BadInput: if the folder cannot be written.
    """
    path = Path(folder).expanduser() / "claims.json"
    try:
        with written_whole(path) as temporary:
            temporary.write_text(report.model_dump_json(indent=1), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write the claims to {folder}: {error}") from None
    return path


@dataclass(slots=True)
class _LineUp:
    """Our own contestants, in both number formats as far as they load."""

    methods: list[OwnMethod] = field(default_factory=list)
    models: dict[str, Model] = field(default_factory=dict)
    costs: dict[str, ForwardCost] = field(default_factory=dict)
    environments: dict[str, Environment] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def model(self) -> Model:
        """A model for what all of them share: tokenizer, context, files."""
        return next(iter(self.models.values()))


def _line_up(settings: BenchSettings, threads: int, progress: Progress | None) -> _LineUp:
    found = _LineUp()
    for dtype in DTYPES:
        try:
            model = load_model(settings, dtype, progress)
        except BadInput as error:
            found.missing[dtype] = str(error)
            continue
        if progress:
            progress(f"measuring the cost of a forward, {dtype}", 0, 1)
        curve = model.cost_curve(again=True)
        found.costs[dtype] = ForwardCost(sizes=list(curve.sizes), seconds=list(curve.seconds))
        found.models[dtype] = model
        found.environments[dtype] = describe(model, threads)
        plain = Method("autoregressive")
        found.methods.append(OwnMethod(model, plain, name=dtype, twin=dtype))
        found.methods.append(OwnMethod(model, Method("ngram", "ngram"), name=ngram(dtype), twin=dtype))
        if dtype == BFLOAT16:
            found.methods.append(OwnMethod(model, plain, {"trace": True}, TRACED, dtype))
    if not found.models:
        raise BadInput(next(iter(found.missing.values())))
    return found


def _startups(settings: BenchSettings, missing: dict[str, str], progress: Progress | None) -> list[float]:
    if progress:
        progress("starting fresh processes", 0, 1)
    try:
        return first_token_seconds(settings)
    except (StartupFailed, OSError) as reason:
        missing["start-up"] = str(reason)
        return []
