"""OmniDraft's central claims: what each of its parts is worth, learning over a stream, and coming back."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import ventris
from ventris.bench.question import Question
from ventris.bench.race import asker
from ventris.draft.omnidraft import OmniDraft
from ventris.engine.errors import BadInput
from ventris.journal import Journal
from ventris.papers.omnidraft_streams import (
    Figure,
    Stream,
    acceptance,
    curve,
    difference,
    rise,
    thirds,
    tokens_per_pass,
)
from ventris.papers.on_prompts import OnPrompts, speed_row
from ventris.papers.recalled import recalled
from ventris.papers.reproduction import Reproduction, Row
from ventris.parts import build_drafter
from ventris.testing.translation import distance_from_exact

FIGURE = (
    "acceptance 0.10 with shared tokens alone, 0.42 with all of it (Llama3-8B, GSM8K); "
    "1.22 to 1.70 times as fast as plain decoding, 0.91 to 1.04 with shared tokens alone"
)

PLAIN = "shared tokens alone"
CACHE = "the merger cache"
DIRECT = "distillation"
WHOLE = "hybrid distillation"
WEIGHED = "hybrid distillation by the target's own probability"
ADAPTIVE = "an adaptive length"

VARIANTS: dict[str, tuple[str | None, dict[str, Any]]] = {
    PLAIN: (None, {"merge": False, "learn": "off"}),
    CACHE: (PLAIN, {"learn": "off"}),
    DIRECT: (CACHE, {"merged_weight": 0.0}),
    WHOLE: (DIRECT, {}),
    WEIGHED: (WHOLE, {"merged_weight": "target"}),
    ADAPTIVE: (WHOLE, {}),
}
"""What each is compared with, and its options. Drafts are of fixed length but for the last."""

VISIT = 32
"""Prompts of a visit to a target, where targets are changed."""

FIGURES: dict[str, tuple[str, Figure]] = {
    "acceptance": ("share", acceptance),
    "tokens a pass": ("tokens", tokens_per_pass),
}


def reproduce_omnidraft(
    draft: str | None = None,
    other: str | None = None,
    depth: int = 6,
    stop: float = 0.6,
    rank: int = 16,
    learning_rate: float | None = None,
    divergence: str = "forward",
    rounds: int = 16,
    variants: Sequence[str] = tuple(VARIANTS),
    journal: str | None = None,
    toys: int = 4,
    raced: bool = True,
    data: str | None = None,
    per_category: int | None = None,
    max_new_tokens: int = 64,
    repeats: int = 1,
    **settings: Any,
) -> Reproduction:
    """Acceptance as the parts are added; each task is a stream that begins with an untaught drafter.

    The target answers each prompt once. What is drafted is then tried on a target that recalls what it said,
    which comes to the same, as all answers are greedy.

    Args:
        draft: Folder of a draft model with a vocabulary of its own; the one that comes with Ventris if not
            given.
        other: A second target with another vocabulary, to switch to and back.
        depth: Tokens drafted ahead at most.
        stop: Chance of a refusal where drafting stops, for the adaptive length.
        rank: Of what is learnt; 0 for all weights.
        learning_rate: Of learning; the drafter's own if not given.
        divergence: What distillation makes small; the paper's is the reverse one.
        rounds: Verifications between two steps of learning.
        variants: Of :data:`VARIANTS`, those to try.
        journal: File that finished streams are kept in, so that a run that was broken off goes on.
        toys: Over how many the paper's rule is enumerated to see how far from exact it is.
        raced: Whether the speeds are taken too.
        data: Prompts as JSONL with categories; the built-in ones when not given.
        per_category: Prompts of each category; all when not given.
        max_new_tokens: Output tokens at most.
        repeats: How often each prompt is decoded for the speeds.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.

    Raises:
        BadInput: for a variant that there is not, or a journal of another run.
    """
    for variant in variants:
        if variant not in VARIANTS:
            raise BadInput(f"there is no variant {variant!r}; there are: {', '.join(VARIANTS)}")
    started = perf_counter()
    measured = OnPrompts(data, per_category, max_new_tokens, repeats, settings)
    given = {
        "model": draft,
        "depth": depth,
        "rank": rank,
        "learning_rate": learning_rate,
        "divergence": divergence,
        "stop": 1.0,
        "learn": "between",
        "memory": "none",
    }
    kept = _Kept(journal, {"given": {**given, "stop": stop}, "rounds": rounds, **_facts(measured)})
    rows: list[Row] = []
    notes: list[str] = []
    for task, questions in _tasks(measured.questions).items():
        streams = kept.of(task)
        if missing := [variant for variant in variants if variant not in streams]:
            prompts = _prompts(measured.model, questions)
            model = recalled(measured.model, prompts, max_new_tokens)
        for variant in missing:
            options = {**given, **VARIANTS[variant][1], **({"stop": stop} if variant == ADAPTIVE else {})}
            made = _drafter(measured.model, options, rounds)
            streams[variant] = Stream.of(model, prompts, made, max_new_tokens)
            kept.add(task, variant, streams[variant])
        rows += _rows(task, streams)
        notes += _notes(task, streams)
    with tempfile.TemporaryDirectory(prefix="ventris-") as folder:
        remembering = {**given, "memory": folder}
        if other is not None:
            rows += _there_and_back(measured, other, remembering, rounds)
        if raced:
            rows += _speeds(measured, remembering, rounds)
    if toys:
        rows += _distances(toys)
    return Reproduction("omnidraft", FIGURE, rows, perf_counter() - started, measured.notes(*notes))


class _Kept:
    """Finished streams by task and variant, in a journal if there is one.

    Args:
        path: Of the journal.
        about: What the streams depend on.
    """

    def __init__(self, path: str | None, about: dict[str, Any]) -> None:
        self._journal = Journal(Path(path).expanduser(), about) if path is not None else None
        self._streams: dict[str, dict[str, Stream]] = {}
        for entry in self._journal.entries() if self._journal is not None else ():
            self.of(entry["task"])[entry["variant"]] = Stream.from_dict(entry["stream"])

    def of(self, task: str) -> dict[str, Stream]:
        return self._streams.setdefault(task, {})

    def add(self, task: str, variant: str, stream: Stream) -> None:
        if self._journal is not None:
            self._journal.add({"task": task, "variant": variant, "stream": stream.to_dict()})


def _facts(measured: OnPrompts) -> dict[str, Any]:
    """What streams depend on besides the drafter's options."""
    settings = measured.settings
    return {
        "model": settings.model,
        "dtype": settings.dtype,
        "data": settings.data,
        "per_category": settings.per_category,
        "max_new_tokens": settings.max_new_tokens,
    }


def _rows(task: str, streams: dict[str, Stream]) -> list[Row]:
    rows = []
    for figure, (unit, of) in FIGURES.items():
        for variant, stream in streams.items():
            before = VARIANTS[variant][0]
            beside = streams.get(before) if before is not None else None
            against = f"; with {before}" if beside is not None else ""
            value = None if beside is None else of(beside, None)
            rows.append(Row(f"{figure} with {variant}, {task}{against}", of(stream, None), unit, value))
    if WHOLE in streams:
        first, last = (acceptance(streams[WHOLE], places) for places in thirds(len(streams[WHOLE])))
        name = f"acceptance in the last third of the stream, {task}; in the first"
        rows.append(Row(name, last, "share", first))
    return rows


def _notes(task: str, streams: dict[str, Stream]) -> list[str]:
    """Intervals, curves and counts."""
    notes = []
    for variant, stream in streams.items():
        before = VARIANTS[variant][0]
        if before in streams:
            for figure, (_, of) in FIGURES.items():
                more = of(stream, None) - of(streams[before], None)
                low, high = difference(stream, streams[before], of)
                notes.append(
                    f"{task}, {figure}: {variant} over {before} {more:+.4f} (95 % interval over prompts "
                    f"{low:+.4f} to {high:+.4f})"
                )
    for variant in (DIRECT, WHOLE, WEIGHED):
        if variant in streams and CACHE in streams:
            more, low, high = rise(streams[variant], streams[CACHE], acceptance)
            notes.append(
                f"{task}, acceptance: the lead of {variant} over {CACHE} is {more:+.4f} larger in the last "
                f"third of the stream than in the first ({low:+.4f} to {high:+.4f})"
            )
    for variant, stream in streams.items():
        tenths = " ".join(f"{share:.3f}" for share in curve(stream, acceptance))
        notes.append(
            f"{task}, {variant}: {len(stream)} prompts, {stream.mergers} mergers, {stream.steps} steps of "
            f"learning; {stream.pieces}; acceptance by tenths of the stream: {tenths}"
        )
    return notes


def _tasks(questions: Sequence[Question]) -> dict[str, list[Question]]:
    tasks: dict[str, list[Question]] = {}
    for question in questions:
        tasks.setdefault(question.category, []).append(question)
    return tasks


def _drafter(model: ventris.Model, options: dict[str, Any], rounds: int) -> OmniDraft:
    made: OmniDraft = build_drafter({"omnidraft": options}, model.workshop)
    made.rounds = rounds
    return made


def _there_and_back(measured: OnPrompts, other: str, kept: dict[str, Any], rounds: int) -> list[Row]:
    """What one user's drafter knows of a target once it has been at another one, on prompts new to it."""
    here = measured.model
    elsewhere = ventris.load(other, threads=measured.settings.threads)
    chosen = measured.questions[:: max(len(measured.questions) // (2 * VISIT), 1)]
    learnt, fresh = chosen[0::2][:VISIT], chosen[1::2][:VISIT]

    def visit(model: ventris.Model, questions: Sequence[Question], **options: Any) -> Stream:
        made = _drafter(model, {**kept, **options}, rounds)
        return Stream.of(model, _prompts(model, questions), made, measured.settings.max_new_tokens)

    known = {"learn": "off", "merge": False}
    untaught = acceptance(visit(here, fresh, **known))
    visit(here, learnt)
    stayed = acceptance(visit(here, fresh, **known))
    visit(elsewhere, learnt)
    back = acceptance(visit(here, fresh, **known))
    return [
        Row("acceptance on new prompts after a first visit; untaught", stayed, "share", untaught),
        Row("acceptance on them on coming back from another target; before that", back, "share", stayed),
    ]


def _prompts(model: ventris.Model, questions: Sequence[Question]) -> list[list[int]]:
    ask = asker(model.tokenizer)
    return [ask(question).prompt(0) for question in questions]


def _speeds(measured: OnPrompts, kept: dict[str, Any], rounds: int) -> list[Row]:
    """Speeds once all prompts have been seen, with the policy that goes by cost."""
    made = _drafter(measured.model, kept, rounds)
    measured.answers(draft=made, policy="fixed")
    plain = {**kept, **VARIANTS[PLAIN][1], "memory": "none"}
    methods = {"omnidraft": {**kept, "learn": "off"}, "shared-tokens": plain}
    report = measured.race([{"name": name, "draft": {"omnidraft": o}} for name, o in methods.items()])
    return [speed_row(report, name) for name in methods]


def _distances(toys: int) -> list[Row]:
    """How far translated-rejection is from exact, where everything can be enumerated."""
    one, two = zip(*(distance_from_exact(seed) for seed in range(toys)), strict=True)
    name = f"total variation of the paper's rule on {toys} toys, a mean, "
    return [Row(name + "one token", mean(one), "TV"), Row(name + "two tokens", mean(two), "TV")]
