"""``run_structured``: settings in, report out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from pydantic import BaseModel

from ventris.bench import machine
from ventris.bench.race import Progress
from ventris.bench.schedule import rotated
from ventris.bench.structured import back_ends
from ventris.bench.structured.cases import Case, read_cases, stratified
from ventris.bench.structured.end_to_end import Document, Task, plan, prepare_documents
from ventris.bench.structured.end_to_end_findings import document_findings
from ventris.bench.structured.hostile import Hostile, Outcome, hostile_inputs, prepare_hostile
from ventris.bench.structured.hostile_findings import hostile_findings
from ventris.bench.structured.isolated import Bounds, Isolated, Stopped
from ventris.bench.structured.journal import Journal
from ventris.bench.structured.mask import MaskResult, prepare_masks
from ventris.bench.structured.mask_findings import mask_findings, suite_findings
from ventris.bench.structured.record import Findings, StructuredReport
from ventris.bench.structured.settings import StructuredSettings
from ventris.bench.structured.suite import read_suite
from ventris.bench.structured.validators import check_installed
from ventris.models.source import resolve

SCHEMAS = {"end-to-end": 150, "cost": 24, "hostile": 10_000}
"""Default of ``limit``."""

UNMEASURED = ("json_file", "html_file", "journal")
"""Settings that change no result; paths of a machine stay out of reports."""

ResultT = TypeVar("ResultT", bound=BaseModel)
Measured = tuple[Findings, list[dict[str, Any]]]


def run_structured(settings: StructuredSettings, progress: Progress | None = None) -> StructuredReport:
    """Measure by one protocol.

    Args:
        settings: What to measure. Files that it names are written by the caller.
        progress: Told what is running, how much is done, and how much there is.

    Raises:
        BadInput: before anything is measured.
    """
    created, started = datetime.now(UTC), perf_counter()
    watch = machine.LoadWatch()
    findings, results = _PROTOCOLS[settings.protocol](settings, progress or _silent)
    load = watch.finish()
    if settings.protocol in ("cost", "end-to-end"):
        findings.warnings += machine.load_warnings(load)
    return StructuredReport(
        protocol=settings.protocol,
        created=created.isoformat(timespec="seconds"),
        seconds=perf_counter() - started,
        settings=_about(settings),
        machine=_machine(),
        load=load,
        findings=findings,
        results=results,
    )


def _mask(settings: StructuredSettings, progress: Progress) -> Measured:
    cases = stratified(read_cases(settings.data), settings.limit, settings.seed)
    return _masks(settings, progress, cases, mask_findings)


def _suite(settings: StructuredSettings, progress: Progress) -> Measured:
    cases = stratified(read_suite(settings.data), settings.limit, settings.seed)
    return _masks(settings, progress, cases, suite_findings)


def _masks(
    settings: StructuredSettings,
    progress: Progress,
    cases: Sequence[Case],
    findings: Callable[[Sequence[MaskResult]], Findings],
) -> Measured:
    rows = [row.name for row in back_ends.chosen(settings.back_ends)]
    jobs = [(case, row) for turn, case in enumerate(cases) for row in rotated(rows, turn)]

    def broken(job: tuple[Case, str], stopped: Stopped) -> MaskResult:
        return MaskResult(name=job[0].name, back_end=job[1], status=stopped.kind, reason=str(stopped))

    worker = Isolated(prepare_masks, (settings.model, settings.whitespace or "spaced"), _bounds(settings))
    results = _each(
        settings, progress, jobs, worker, MaskResult, lambda job: (job[1], job[0].name), _key, broken
    )
    found = findings(results)
    found.figures["peak_bytes"] = worker.peak_bytes
    return found, [result.model_dump() for result in results]


def _end_to_end(settings: StructuredSettings, progress: Progress) -> Measured:
    check_installed()
    rows = [back_ends.LM_ONLY, *(row.name for row in back_ends.chosen(settings.back_ends))]
    whitespace = settings.whitespace or "compact"
    asked = plan(
        read_cases(settings.data),
        rows,
        resolve(settings.model).tokenizer,
        settings.limit or SCHEMAS["end-to-end"],
        settings.seed,
        whitespace,
        settings.max_prompt_tokens,
    )

    def broken(task: Task, stopped: Stopped) -> Document:
        return Document(
            name=task.case.name,
            source=task.case.source,
            back_end=task.back_end,
            status=stopped.kind,
            reason=str(stopped),
        )

    worker = Isolated(prepare_documents, (settings, whitespace), _bounds(settings))
    results = _each(
        settings,
        progress,
        asked.tasks,
        worker,
        Document,
        lambda task: (task.back_end, task.case.name),
        _key,
        broken,
    )
    found = document_findings(results, rows, settings.max_new_tokens, asked.too_long, settings.seed)
    found.figures["peak_bytes"] = worker.peak_bytes
    return found, [result.model_dump() for result in results]


def _hostile(settings: StructuredSettings, progress: Progress) -> Measured:
    inputs = hostile_inputs(settings.limit or SCHEMAS["hostile"], settings.seed)

    def broken(made: Hostile, stopped: Stopped) -> Outcome:
        return Outcome(name=made.name, kind=made.kind, ending=stopped.kind, detail=str(stopped))

    worker = Isolated(prepare_hostile, (settings.model,), _bounds(settings))
    results = _each(
        settings, progress, inputs, worker, Outcome, lambda made: made.name, lambda r: r.name, broken
    )
    return hostile_findings(results, worker.peak_bytes), [result.model_dump() for result in results]


def _cost(settings: StructuredSettings, progress: Progress) -> Measured:
    from ventris.bench.structured.cost import measure_cost

    return measure_cost(settings, settings.limit or SCHEMAS["cost"], progress)


def _quality(settings: StructuredSettings, progress: Progress) -> Measured:
    from ventris.bench.structured.quality import measure_quality

    return measure_quality(settings, progress)


_PROTOCOLS: dict[str, Callable[[StructuredSettings, Progress], Measured]] = {
    "mask": _mask,
    "suite": _suite,
    "end-to-end": _end_to_end,
    "cost": _cost,
    "quality": _quality,
    "hostile": _hostile,
}


def _each(
    settings: StructuredSettings,
    progress: Progress,
    jobs: Sequence[Any],
    worker: Isolated,
    kind: type[ResultT],
    job_key: Callable[[Any], Any],
    result_key: Callable[[ResultT], Any],
    broken: Callable[[Any, Stopped], ResultT],
) -> list[ResultT]:
    """A result for every job, in the order of the jobs: from the journal, or from the worker."""
    journal = Journal(settings.journal, _about(settings))
    stored = [kind.model_validate(entry) for entry in journal.results]
    known = {result_key(result): result for result in stored}
    results = []
    try:
        for done, job in enumerate(jobs):
            key = job_key(job)
            progress(key if isinstance(key, str) else ": ".join(key), done, len(jobs))
            if key not in known:
                try:
                    known[key] = worker.run(job)
                except Stopped as stopped:
                    known[key] = broken(job, stopped)
                journal.add(known[key].model_dump())
            results.append(known[key])
    finally:
        worker.close()
    progress("done", len(jobs), len(jobs))
    return results


def _key(result: MaskResult | Document) -> tuple[str, str]:
    return result.back_end, result.name


def _bounds(settings: StructuredSettings) -> Bounds:
    return Bounds(settings.seconds, int(settings.memory_gb * 1e9))


def _about(settings: StructuredSettings) -> dict[str, Any]:
    """The settings for a report: files by their names only."""
    about = settings.model_dump(exclude=set(UNMEASURED))
    for name in ("data", "model"):
        if about[name] is not None:
            about[name] = Path(about[name]).name
    return about


def _machine() -> dict[str, str]:
    memory = machine.memory_bytes()
    return {
        "processor": f"{machine.processor()}, {machine.available_cores()} cores",
        "memory": f"{memory / 1e9:.0f} GB" if memory else "",
        "system": machine.system(),
        "versions": ", ".join(f"{name} {version}" for name, version in machine.versions().items()),
        "commit": machine.commit() or "",
    }


def _silent(what: str, done: int, total: int) -> None:
    """Nobody asked to be told."""
