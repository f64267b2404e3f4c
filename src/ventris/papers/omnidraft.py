"""OmniDraft's central claims: what each of its parts is worth, learning over a stream, and coming back."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from statistics import mean
from time import perf_counter
from typing import Any

import ventris
from ventris.bench.question import Question
from ventris.draft.omnidraft import OmniDraft
from ventris.engine.errors import BadInput
from ventris.engine.request import Completion
from ventris.papers.on_prompts import OnPrompts, speed_row, tokens_per_pass
from ventris.papers.reproduction import Reproduction, Row
from ventris.parts import build_drafter
from ventris.testing.translation import distance_from_exact

FIGURE = (
    "acceptance 0.10 with shared tokens alone, 0.42 with all of it (Llama3-8B, GSM8K); "
    "1.22 to 1.70 times as fast as plain decoding, 0.91 to 1.04 with shared tokens alone"
)

VARIANTS: dict[str, dict[str, Any]] = {
    "shared tokens alone": {"merge": False, "learn": "off"},
    "the merger cache": {"learn": "off"},
    "distillation": {"merged_weight": 0.0},
    "hybrid distillation": {},
}
"""Each with all that stands before it; drafts are of fixed length, so that only what is named differs."""

WHOLE = "hybrid distillation"


def reproduce_omnidraft(
    draft: str | None = None,
    other: str | None = None,
    depth: int = 6,
    stop: float = 0.6,
    rank: int = 16,
    rounds: int = 8,
    toys: int = 4,
    raced: bool = True,
    data: str | None = None,
    per_category: int | None = None,
    max_new_tokens: int = 64,
    repeats: int = 1,
    **settings: Any,
) -> Reproduction:
    """Acceptance as the parts are added; each task is a stream that begins with an untaught drafter.

    Args:
        draft: Folder of a draft model with a vocabulary of its own, from ``ventris train omnidraft``.
        other: A second target with another vocabulary, to switch to and back.
        depth: Tokens drafted ahead at most.
        stop: Chance of a refusal where drafting stops, for the adaptive length.
        rank: Of what is learnt; 0 for all weights.
        rounds: Verifications between two steps of learning.
        toys: Over how many the paper's rule is enumerated to see how far from exact it is.
        raced: Whether the speeds are taken too.
        data: Prompts as JSONL with categories; the built-in ones when not given.
        per_category: Prompts of each category; all when not given.
        max_new_tokens: Output tokens at most.
        repeats: How often each prompt is decoded for the speeds.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.

    Raises:
        BadInput: if there is no draft model.
    """
    if draft is None:
        raise BadInput(
            "a draft model with another vocabulary is needed; make one with 'ventris train omnidraft' and "
            "give its folder, as --option draft=FOLDER"
        )
    started = perf_counter()
    measured = OnPrompts(data, per_category, max_new_tokens, repeats, settings)
    given = {"model": draft, "depth": depth, "rank": rank, "stop": 1.0, "learn": "between", "memory": "none"}
    rows: list[Row] = []
    notes: list[str] = []
    for task, questions in _tasks(measured.questions).items():
        found: dict[str, list[Completion]] = {}
        for variant, choice in {**VARIANTS, "adaptive length": {"stop": stop}}.items():
            made = _drafter(measured.model, {**given, **choice}, rounds)
            found[variant] = measured.answers(questions, draft=made, policy="fixed")
            if variant == WHOLE:
                notes.append(_told(task, made, len(questions)))
        rows += _rows(task, found)
    with tempfile.TemporaryDirectory(prefix="ventris-") as folder:
        kept = {**given, "memory": folder}
        if other is not None:
            rows.append(_there_and_back(measured, other, kept, rounds))
        if raced:
            rows += _speeds(measured, kept, rounds)
    if toys:
        rows += _distances(toys)
    return Reproduction("omnidraft", FIGURE, rows, perf_counter() - started, measured.notes(*notes))


def acceptance(answers: Sequence[Completion]) -> float:
    """Share of the drafted tokens that were kept, over all answers together."""
    drafted = sum(done.stats.drafted for done in answers)
    return sum(done.stats.accepted for done in answers) / max(drafted, 1)


def thirds(answers: Sequence[Completion]) -> tuple[float, float]:
    """Acceptance in the first and in the last third of a stream."""
    part = max(len(answers) // 3, 1)
    return acceptance(answers[:part]), acceptance(answers[-part:])


def _rows(task: str, found: dict[str, list[Completion]]) -> list[Row]:
    rows = []
    before = None
    for variant in VARIANTS:
        share = acceptance(found[variant])
        rows.append(Row(f"acceptance with {variant}, {task}; without", share, "share", before))
        before = share
    first, last = thirds(found[WHOLE])
    rows.append(
        Row(f"acceptance in the last third of the stream, {task}; in the first", last, "share", first)
    )
    adaptive, fixed = found["adaptive length"], found[WHOLE]
    name = f"acceptance with an adaptive length, {task}; with a fixed one"
    rows.append(Row(name, acceptance(adaptive), "share", acceptance(fixed)))
    name = f"tokens a pass with an adaptive length, {task}; with a fixed one"
    rows.append(Row(name, tokens_per_pass(adaptive), "tokens", tokens_per_pass(fixed)))
    return rows


def _tasks(questions: Sequence[Question]) -> dict[str, list[Question]]:
    tasks: dict[str, list[Question]] = {}
    for question in questions:
        tasks.setdefault(question.category, []).append(question)
    return tasks


def _drafter(model: ventris.Model, options: dict[str, Any], rounds: int) -> OmniDraft:
    made: OmniDraft = build_drafter({"omnidraft": options}, model.workshop)
    made.rounds = rounds
    return made


def _told(task: str, made: OmniDraft, prompts: int) -> str:
    learnt = f"{len(made.translator.mergers)} mergers and {made.teaching.steps} steps of learning"
    return f"{task}: {prompts} prompts, {learnt}; {made.map.shared:.0%} of the target's tokens are shared"


def _there_and_back(measured: OnPrompts, other: str, kept: dict[str, Any], rounds: int) -> Row:
    """One user's stream on the target, then on another one, then on the first again."""
    questions = measured.questions
    first, _ = thirds(_stream(measured, kept, rounds, questions))
    elsewhere = ventris.load(other, threads=measured.settings.threads)
    drafter = _drafter(elsewhere, kept, rounds)
    for question in questions:
        elsewhere.generate(
            question.turns[0], max_new_tokens=measured.settings.max_new_tokens, draft=drafter, policy="fixed"
        )
    back, _ = thirds(_stream(measured, kept, rounds, questions))
    return Row("acceptance on coming back from another target; on the first visit", back, "share", first)


def _stream(
    measured: OnPrompts, kept: dict[str, Any], rounds: int, questions: Sequence[Question]
) -> list[Completion]:
    made = _drafter(measured.model, kept, rounds)
    return measured.answers(questions, draft=made, policy="fixed")


def _speeds(measured: OnPrompts, kept: dict[str, Any], rounds: int) -> list[Row]:
    """Speeds once all prompts have been seen, with the policy that goes by cost."""
    _stream(measured, kept, rounds, measured.questions)
    plain = {**kept, **VARIANTS["shared tokens alone"], "memory": "none"}
    methods = {"omnidraft": {**kept, "learn": "off"}, "shared-tokens": plain}
    report = measured.race([{"name": name, "draft": {"omnidraft": o}} for name, o in methods.items()])
    return [speed_row(report, name) for name in methods]


def _distances(toys: int) -> list[Row]:
    """How far translated-rejection is from exact, where everything can be enumerated."""
    one, two = zip(*(distance_from_exact(seed) for seed in range(toys)), strict=True)
    name = f"total variation of the paper's rule on {toys} toys, a mean, "
    return [Row(name + "one token", mean(one), "TV"), Row(name + "two tokens", mean(two), "TV")]
