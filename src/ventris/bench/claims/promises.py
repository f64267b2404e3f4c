"""The promises, one function each: from what was measured to a figure beside its target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from ventris.bench.claims.claim import Claim
from ventris.bench.record import BatchRun, ForwardCost, Run
from ventris.bench.statistics import Ratio
from ventris.bench.summary import batch_cell, compare, shares

BFLOAT16, INT4, INT4_A8 = "bfloat16", "int4", "int4-a8"
COPYING = ("summarization", "rag")
BATCH = 8


def ngram(dtype: str) -> str:
    """Name of the n-gram method on the model in one number format."""
    return f"{dtype} ngram"


TRACED = f"{BFLOAT16} traced"


@dataclass(slots=True)
class Measured:
    """What the promises are judged by.

    Attributes:
        runs: One interleaved race of all contestants.
        copying_runs: A second one, over many prompts whose answers copy from them, without the peers.
        missing: Contestants and parts that could not be measured, with the reason.
    """

    runs: Sequence[Run]
    copying_runs: Sequence[Run] = ()
    batch_runs: Sequence[BatchRun] = ()
    costs: Mapping[str, ForwardCost] = field(default_factory=dict)
    startups: Sequence[float] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def ratio(self, contestant: str, other: str) -> Ratio | None:
        """How many times as fast one contestant is as another."""
        return compare(self.runs, contestant, other, self.seed)

    def why_not(self, *names: str) -> str:
        """Why one of these could not be measured."""
        known = [f"{name}: {self.missing[name]}" for name in names if name in self.missing]
        return "; ".join(known) or "there were no runs to compare"


def over_transformers(measured: Measured) -> Claim:
    """Plain decoding in bfloat16 against transformers' ``generate``."""
    ratio = measured.ratio(BFLOAT16, "transformers")
    note = "" if ratio else measured.why_not(BFLOAT16, "transformers")
    return _ratio(
        "over-transformers", "plain decoding against transformers generate, bfloat16", ratio, 3.0, note=note
    )


def over_llama_cpp(measured: Measured, dtype: str) -> Claim:
    """Plain decoding on 4-bit blocks against llama.cpp on the same file.

    ``int4-a8`` rounds activations as llama.cpp does; ``int4`` is more faithful.
    """
    ratio = measured.ratio(dtype, "llama.cpp")
    note = "" if ratio else measured.why_not(dtype, "llama.cpp")
    title = f"plain decoding against llama.cpp, the same file, {dtype}"
    return _ratio(f"over-llama.cpp-{dtype}", title, ratio, 1.0, aim=1.2, note=note)


def eight_for_one(measured: Measured) -> Claim:
    """Eight nodes in one forward against one node."""
    cost = measured.costs.get(BFLOAT16)
    return Claim(
        name="eight-for-one",
        title="one forward over 8 nodes against 1 node, bfloat16",
        value=cost.eight_to_one if cost else None,
        better="lower",
        target=1.25,
        note="" if cost else measured.why_not(BFLOAT16),
    )


def lean_loop(measured: Measured, dtype: str) -> Claim:
    """What the loop costs besides the target's forward."""
    known = shares([run for run in measured.runs if run.contestant == dtype])
    return Claim(
        name=f"lean-loop-{dtype}",
        title=f"share of a step outside the target's forward, {dtype}",
        value=1.0 - known["target"] if known else None,
        better="lower",
        target=0.08,
        unit="%",
        note="" if known else measured.why_not(dtype),
    )


def copying_pays(measured: Measured, dtype: str) -> Claim:
    """N-gram drafts where the answer copies from the prompt; the weaker of the two kinds of task counts."""
    worst = _worst(measured.copying_runs, dtype, measured.seed)
    return _ratio(
        f"copying-{dtype}",
        f"n-gram drafts on summarization and retrieval, {dtype}",
        worst[0] if worst else None,
        1.5,
        note=worst[1] if worst else measured.why_not(dtype, ngram(dtype)),
    )


def never_slower(measured: Measured, dtype: str) -> Claim:
    """N-gram drafts in the category that suits them least."""
    # Where the second race asked many questions, the few of the first add nothing.
    many = {run.category for run in measured.copying_runs}
    others = [run for run in measured.runs if run.category not in many]
    worst = _worst([*others, *measured.copying_runs], dtype, measured.seed)
    return _ratio(
        f"never-slower-{dtype}",
        f"n-gram drafts in the least suitable category, {dtype}",
        worst[0] if worst else None,
        0.97,
        note=worst[1] if worst else measured.why_not(dtype, ngram(dtype)),
    )


def batches_pay(measured: Measured) -> Claim:
    """Eight requests side by side against one after the other."""
    found = {
        dtype: batch_cell(runs, measured.seed)
        for dtype in (BFLOAT16, INT4_A8, INT4)
        if (runs := [run for run in measured.batch_runs if run.contestant == dtype])
    }
    cell = found.get(BFLOAT16)
    said = [
        f"{dtype} {cell.alone:.0f} and {cell.together:.0f} tokens/s{_times(cell.ratio)}"
        for dtype, cell in found.items()
    ]
    return _ratio(
        "batch-of-8",
        "total tokens/s of a batch of 8 against batch 1, bfloat16",
        cell.ratio if cell else None,
        3.5,
        note="; ".join(said) or measured.why_not(BFLOAT16),
    )


def quick_start(measured: Measured) -> Claim:
    """``ventris generate`` in a fresh process, from the command to the first token."""
    values = list(measured.startups)
    return Claim(
        name="quick-start",
        title="ventris generate: first token in a fresh process, warm cache",
        value=median(values) if values else None,
        low=min(values) if values else None,
        high=max(values) if values else None,
        better="lower",
        target=4.0,
        unit="s",
        note="the interval is the range of the runs" if values else measured.why_not("start-up"),
    )


def tracing_is_cheap(measured: Measured) -> Claim:
    """Decoding with a trace against decoding without."""
    ratio = measured.ratio(BFLOAT16, TRACED)
    known = ratio is not None
    return Claim(
        name="cheap-trace",
        title="time that recording a trace adds, bfloat16",
        value=ratio.median - 1 if ratio else None,
        low=ratio.low - 1 if ratio and ratio.low is not None else None,
        high=ratio.high - 1 if ratio and ratio.high is not None else None,
        better="lower",
        target=0.02,
        unit="%",
        note="" if known else measured.why_not(BFLOAT16, TRACED),
    )


PROMISES: tuple[Callable[[Measured], Claim], ...] = (
    over_transformers,
    lambda measured: over_llama_cpp(measured, INT4_A8),
    lambda measured: over_llama_cpp(measured, INT4),
    eight_for_one,
    lambda measured: lean_loop(measured, BFLOAT16),
    lambda measured: lean_loop(measured, INT4),
    lambda measured: copying_pays(measured, BFLOAT16),
    lambda measured: copying_pays(measured, INT4_A8),
    lambda measured: copying_pays(measured, INT4),
    lambda measured: never_slower(measured, BFLOAT16),
    lambda measured: never_slower(measured, INT4_A8),
    lambda measured: never_slower(measured, INT4),
    batches_pay,
    quick_start,
    tracing_is_cheap,
)
"""In the order of the table."""


def _worst(runs: Sequence[Run], dtype: str, seed: int) -> tuple[Ratio, str] | None:
    """The lowest ratio of n-gram drafts over the categories of these runs, and what each of them gave."""
    by_category: dict[str, list[Run]] = {}
    for run in runs:
        by_category.setdefault(run.category, []).append(run)
    found = {
        category: ratio
        for category, some in by_category.items()
        if (ratio := compare(some, ngram(dtype), dtype, seed)) is not None
    }
    if not found:
        return None
    said = ", ".join(f"{category} {ratio.median:.2f}x" for category, ratio in found.items())
    return min(found.values(), key=lambda ratio: ratio.median), said


def _times(ratio: Ratio | None) -> str:
    return f" ({ratio.median:.2f}x)" if ratio else ""


def _ratio(
    name: str, title: str, ratio: Ratio | None, target: float, aim: float | None = None, note: str = ""
) -> Claim:
    return Claim(
        name=name,
        title=title,
        value=ratio.median if ratio else None,
        low=ratio.low if ratio else None,
        high=ratio.high if ratio else None,
        target=target,
        aim=aim,
        note=note,
    )
