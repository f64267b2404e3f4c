"""Judge decoding's central claim: more drafted tokens kept at nearly the same accuracy.

The judge, a threshold on the target's probability and one on the divergence of target and drafter decode the
same generated tasks with the same drafts. The thresholds of all three are chosen on one half of the tasks;
what is shown was measured on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ventris.bench.prepare import load_model
from ventris.bench.settings import read_settings
from ventris.draft.checkpoint import open_checkpoint
from ventris.engine.request import Completion
from ventris.model import Model
from ventris.papers.reproduction import Reproduction, Row
from ventris.train.fact_tasks import FactTask, fact_tasks
from ventris.train.judge import JudgeTrained, fit_judge, judge_of
from ventris.train.judge_examples import prepare_examples
from ventris.train.judge_settings import JudgeSettings
from ventris.train.settings import read_settings as read_training
from ventris.verify import Judge, ThresholdRollback
from ventris.verify.judge import SOURCE

FIGURE = "6.3 to 19.7 accepted tokens a call at nearly the same quality (Llama-3.1, 8B drafting for 405B)"

EVERYTHING = 1e9
"""Nats within which every drafted token lies."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verifier made of some tasks.

    Attributes:
        accepted: Drafted tokens kept by calls of the target.
        right: Share of right answers, 0 to 100.
        judged: Share of the output tokens that only the judge let pass, 0 to 100.
    """

    accepted: float
    right: float
    judged: float


class OnTasks:
    """Generated tasks, answered by one model with one drafter under several verifiers."""

    def __init__(self, model: Model, draft: Any, max_new_tokens: int, batch: int) -> None:
        self.model = model
        self.settings = {
            "draft": draft,
            "policy": "fixed",
            "max_new_tokens": max_new_tokens,
            "max_batch": batch,
            "trace": True,
        }

    def outcome(self, tasks: Sequence[FactTask], verifier: Any) -> Outcome:
        """Answer the tasks greedily."""
        answers: list[Completion] = self.model.generate(
            [task.question for task in tasks], verifier=verifier, **self.settings
        )
        right = [task.accepts(done.text) for task, done in zip(tasks, answers, strict=True)]
        steps = sum(done.stats.steps for done in answers)
        tokens = sum(len(done.tokens) for done in answers)
        judged = sum(_judged(done) for done in answers)
        accepted = sum(done.stats.accepted for done in answers) / max(steps, 1)
        return Outcome(accepted, 100 * sum(right) / len(right), 100 * judged / max(tokens, 1))


def _judged(done: Completion) -> int:
    steps = done.trace.steps if done.trace is not None else []
    return sum(visit.source == SOURCE for step in steps for visit in step.visits)


def reproduce_judge_decoding(
    checkpoint: str | None = None,
    draft: str = "aligned:depth=8",
    tasks: int = 160,
    loss: float = 2.0,
    thresholds: Sequence[float] = (0.05, 0.2, 0.5, 0.8, 0.95),
    nats: Sequence[float] = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0),
    divergences: Sequence[float] = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0),
    left_out: Sequence[str] | None = None,
    cache: str | None = None,
    max_new_tokens: int = 48,
    batch: int = 8,
    **settings: Any,
) -> Reproduction:
    """Accepted tokens a call and task accuracy: the judge, two untrained thresholds, and the exact rule.

    Args:
        checkpoint: Folder of the judge; the one that comes with Ventris when not given.
        draft: A draft model, for one of the controls needs its distribution; right, but worded otherwise than
            the target would (see ``ventris train tasks``).
        tasks: Generated tasks, none of them in training; half of them choose the thresholds.
        loss: Points of accuracy that the chosen thresholds may lose.
        thresholds: Tried for the judge, besides its own.
        nats: Tried for the target's probability, as -ln p.
        divergences: Tried for KL(target || drafter).
        left_out: Families for which a judge is trained that never saw them; all when not given. The labelled
            rows come from the cache if the judge was trained with this drafter and cache, else they are made
            anew, which takes as long as training the judge did.
        cache: Folder of the training's cache; Ventris's own when not given.
        max_new_tokens: Output tokens at most.
        batch: Tasks answered side by side.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.
    """
    started = perf_counter()
    chosen = read_settings({**settings, "max_new_tokens": max_new_tokens})
    model = load_model(chosen)
    judge = Judge.load(model, checkpoint)
    made = open_checkpoint("judge", model, checkpoint)[1].training["settings"]
    training = read_training(
        JudgeSettings, {**made, "draft": made["draft"] and draft, "cache": cache, "out": "unused"}
    )
    measured = OnTasks(model, draft, max_new_tokens, batch)
    both = fact_tasks(tasks, seed=chosen.seed, part="test", families=training.families)
    choosing, shown = both[: tasks // 2], both[tasks // 2 :]

    exact_choosing, exact = measured.outcome(choosing, "greedy"), measured.outcome(shown, "greedy")
    tried: dict[str, list[tuple[str, Any]]] = {
        "the judge": [
            (f"{t:.4g}", Judge(judge.head, judge.taps[0], t)) for t in sorted({*thresholds, judge.threshold})
        ],
        "a threshold on probability": [(f"{n:g} nats", ThresholdRollback(n)) for n in nats],
        "a threshold on divergence": [
            (f"{n:g} nats", ThresholdRollback(n, "divergence")) for n in divergences
        ],
    }
    notes = [
        f"{chosen.model} in {getattr(model.target, 'dtype', '')} on {model.target.device.type}",
        f"drafts by {draft}",
        f"{len(shown)} generated tasks that are in no training; thresholds chosen on {len(choosing)} others, "
        f"losing {loss:g} points there at most",
        "judges of the ablations stand at the threshold that their own training chose",
    ]
    rows = [
        Row("accepted tokens a call, exact rule", exact.accepted, "tokens"),
        Row("task accuracy, exact rule", exact.right, "%"),
    ]
    for name, settings_tried in tried.items():
        outcomes = {at: (measured.outcome(choosing, verifier), verifier) for at, verifier in settings_tried}
        at = best_within({at: found for at, (found, _) in outcomes.items()}, exact_choosing.right - loss)
        if outcomes[at][0].right < exact_choosing.right - loss:
            notes.append(f"{name} never stayed within that loss; its most accurate setting is shown")
        found = measured.outcome(shown, outcomes[at][1])
        rows += _rows(f"{name} at {at}", found, exact)
        if name == "the judge":
            rows.append(Row("output tokens that only the judge let pass", found.judged, "%"))
    rows += _rows("everything kept", measured.outcome(shown, ThresholdRollback(EVERYTHING)), exact)
    rows += _ablations(measured, training, shown, judge, left_out)
    return Reproduction("judge-decoding", FIGURE, rows, perf_counter() - started, notes)


def best_within(outcomes: dict[str, Outcome], least: float) -> str:
    """The setting that accepts most of those with at least so many right answers, else the most accurate."""
    good = [at for at, found in outcomes.items() if found.right >= least]
    if not good:
        return max(outcomes, key=lambda at: (outcomes[at].right, outcomes[at].accepted))
    return max(good, key=lambda at: outcomes[at].accepted)


def _rows(name: str, found: Outcome, against: Outcome) -> list[Row]:
    return [
        Row(f"accepted tokens a call, {name}", found.accepted, "tokens", against.accepted),
        Row(f"task accuracy, {name}", found.right, "%", against.right),
    ]


def _ablations(
    measured: OnTasks,
    training: JudgeSettings,
    shown: Sequence[FactTask],
    judge: Judge,
    left_out: Sequence[str] | None,
) -> list[Row]:
    """Judges that never saw a family, on that family; and judges with one kind of label."""
    families = sorted({task.family for task in shown}) if left_out is None else list(left_out)
    if not families:
        return []
    examples = prepare_examples(measured.model, training)
    layer = judge.taps[0]
    rows = []
    for family in families:
        some = [task for task in shown if task.family == family]
        without = fit_judge(examples, training.model_copy(update={"left_out": [family]}))
        seen = measured.outcome(some, judge)
        rows += _rows(
            f"{family} by a judge that never saw it, against one that did",
            measured.outcome(some, _verifier(without, layer, measured)),
            seen,
        )
    if training.labels == "both":
        whole = measured.outcome(shown, judge)
        for name, chosen in (("marked answers", ~examples.swapped), ("swaps", examples.swapped)):
            trained = fit_judge(examples.of(chosen), training)
            rows += _rows(
                f"labels from {name} alone, against both",
                measured.outcome(shown, _verifier(trained, layer, measured)),
                whole,
            )
    return rows


def _verifier(trained: JudgeTrained, layer: int, measured: OnTasks) -> Judge:
    head = judge_of(trained.probe, layer).to(measured.model.target.device)
    return Judge(head, layer, trained.measured["threshold"])
