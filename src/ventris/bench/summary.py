"""From raw runs to the figures of the tables. Nothing here measures; a stored report gives the same again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from ventris.bench.prompts import CONVERSATION
from ventris.bench.record import BatchRun, Entrant, Report, Run
from ventris.bench.statistics import Ratio, median_ratio

OVERALL = "overall"
MULTI_TURN = "multi-turn conversation"

DEFINITIONS = {
    "tokens/s": "decode tokens by decode seconds of a question, all its turns together; decoding begins when "
    "the first token is there, so reading the prompt does not count. The median over questions and repeats.",
    "speed-up": "tokens/s by those of plain autoregressive decoding on the same runtime, for the same "
    "question in the same repeat; the median over questions, with a 95 % bootstrap interval (questions and "
    "repeats resampled). If the interval covers 1, no difference was found, and none is claimed.",
    "against Ventris": "the same ratio, against this toolkit's autoregressive decoding.",
    "tokens per pass": "output tokens by target passes; the target's own token of each pass counts (so 1 "
    "is plain decoding), and the pass that reads the end of the prompt counts.",
    "acceptance": "share of the steps in which a draft at this depth was kept, among those in which one "
    "was judged.",
    "time to first token": "from handing over the prompt to the first token.",
    "outside the target": "share of a decode step that is not the target's forward: drafting, guides, "
    "verification, and the loop itself.",
    "bandwidth": "bytes of the weights by target passes a second while decoding.",
    "memory": "the highest resident memory above what was resident before a run.",
    "identical": "share of the outputs that equal plain autoregressive decoding token for token. A "
    "near-tie is a difference where the two best logits lie within the rounding of bfloat16.",
    "T(n)": "median time of one forward over n nodes behind 128 tokens.",
}
"""What the words of the report mean."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One contestant in one category.

    Attributes:
        tokens_per_second: ``None`` if no run was longer than one token.
        speedup: Against plain decoding on the same runtime; ``None`` for plain decoding itself.
        against_ours: Against this toolkit's plain decoding.
        acceptance: By depth.
        parts: Shares of decode time.
        read_per_second: Prompt tokens a second until the first token.
        identical: Share of outputs that equal the twin's; ``None`` where nothing was compared.
        near_ties, broken: Outputs that differ at a near-tie, and elsewhere.
        bandwidth: Bytes of weights read a second.
    """

    contestant: str
    category: str
    questions: int
    tokens_per_second: float | None
    speedup: Ratio | None
    against_ours: Ratio | None
    tokens_per_pass: float | None
    acceptance: list[float]
    parts: dict[str, float]
    first_token_seconds: float
    read_per_second: float | None
    peak_growth: int | None
    identical: float | None
    near_ties: int
    broken: int
    bandwidth: float | None

    @property
    def outside_target(self) -> float | None:
        """Share of a decode step that is not the target's forward."""
        return 1.0 - self.parts["target"] if "target" in self.parts else None


@dataclass(frozen=True, slots=True)
class BatchCell:
    """Total tokens a second of one method at batch 1 and side by side."""

    contestant: str
    size: int
    alone: float
    together: float
    ratio: Ratio | None


@dataclass(frozen=True, slots=True)
class Summary:
    """All figures of a report.

    Attributes:
        categories: In the order of the prompts, then the papers' group if it is there, then all together.
        entrants: Those that ran.
    """

    categories: list[str]
    entrants: list[Entrant]
    cells: dict[tuple[str, str], Cell]
    batches: list[BatchCell] = field(default_factory=list)


def summarize(report: Report) -> Summary:
    """The figures of a report."""
    ran = {run.contestant for run in report.runs}
    entrants = [entrant for entrant in report.entrants if entrant.name in ran]
    groups = _categories(report.runs)
    seed = int(report.settings.get("seed", 0))
    cells = {}
    for category, members in groups.items():
        runs = [run for run in report.runs if run.category in members]
        for entrant in entrants:
            cells[entrant.name, category] = _cell(
                entrant, category, runs, entrants[0].name, report.environment.weight_bytes, seed
            )
    return Summary(list(groups), entrants, cells, _batches(report.batch_runs, seed))


def speeds(runs: Iterable[Run], contestant: str) -> dict[tuple[str, int], float]:
    """Tokens a second by question and repeat, all turns of a question together."""
    tokens: dict[tuple[str, int], int] = defaultdict(int)
    seconds: dict[tuple[str, int], float] = defaultdict(float)
    for run in runs:
        if run.contestant == contestant:
            key = run.question, run.repeat
            tokens[key] += run.decode_tokens
            seconds[key] += run.decode_seconds
    return {key: tokens[key] / seconds[key] for key in tokens if tokens[key] and seconds[key] > 0}


def compare(runs: Sequence[Run], contestant: str, other: str, seed: int = 0) -> Ratio | None:
    """How many times as fast as another contestant one is, question by question and repeat by repeat."""
    own, base = speeds(runs, contestant), speeds(runs, other)
    groups: dict[str, list[float]] = defaultdict(list)
    for (question, repeat), speed in own.items():
        if (question, repeat) in base:
            groups[question].append(speed / base[question, repeat])
    return median_ratio(list(groups.values()), seed)


def shares(runs: Iterable[Run]) -> dict[str, float]:
    """Shares of decode time by part of a step."""
    seconds: dict[str, float] = defaultdict(float)
    for run in runs:
        for part, spent in run.parts.items():
            seconds[part] += spent
    total = sum(seconds.values())
    return {part: spent / total for part, spent in seconds.items()} if total > 0 else {}


def _categories(runs: Sequence[Run]) -> dict[str, set[str]]:
    """Names of the rows with the categories that belong to each."""
    single = dict.fromkeys(run.category for run in runs)
    groups = {category: {category} for category in single}
    talks = {category for category in single if category in CONVERSATION}
    if len(talks) > 1:
        groups[MULTI_TURN] = talks
    if len(groups) > 1:
        groups[OVERALL] = set(single)
    elif single:
        groups = {OVERALL: set(single)}
    return groups


def _cell(
    entrant: Entrant, category: str, runs: Sequence[Run], ours: str, weight_bytes: int | None, seed: int
) -> Cell:
    own = [run for run in runs if run.contestant == entrant.name]
    rates = list(speeds(own, entrant.name).values())
    passes = sum(run.passes or 0 for run in own)
    decode_passes = sum(run.decode_passes or 0 for run in own)
    decode_seconds = sum(run.decode_seconds for run in own)
    compared = [run for run in own if run.same is not None]
    differing = [run for run in compared if not run.same]
    near = sum(1 for run in differing if run.difference is not None and run.difference.near_tie)
    growths = [run.peak_growth for run in own if run.peak_growth is not None]
    reading = sum(run.first_token_seconds for run in own)
    measured = entrant.kind == "method" and weight_bytes and decode_passes and decode_seconds
    return Cell(
        contestant=entrant.name,
        category=category,
        questions=len({run.question for run in own}),
        tokens_per_second=median(rates) if rates else None,
        speedup=None if entrant.plain == entrant.name else compare(runs, entrant.name, entrant.plain, seed),
        against_ours=None if entrant.name == ours else compare(runs, entrant.name, ours, seed),
        tokens_per_pass=sum(run.new_tokens for run in own) / passes if passes else None,
        acceptance=_acceptance(own),
        parts=shares(own),
        first_token_seconds=median(run.first_token_seconds for run in own) if own else 0.0,
        read_per_second=sum(run.prompt_tokens for run in own) / reading if reading > 0 else None,
        peak_growth=max(growths) if growths else None,
        identical=sum(1 for run in compared if run.same) / len(compared) if compared else None,
        near_ties=near,
        broken=len(differing) - near,
        bandwidth=weight_bytes * decode_passes / decode_seconds if measured and weight_bytes else None,
    )


def _acceptance(runs: Sequence[Run]) -> list[float]:
    depth = max((len(run.proposed_by_depth) for run in runs), default=0)
    shares = []
    for level in range(depth):
        judged = sum(run.proposed_by_depth[level] for run in runs if level < len(run.proposed_by_depth))
        kept = sum(run.accepted_by_depth[level] for run in runs if level < len(run.accepted_by_depth))
        shares.append(kept / judged if judged else 0.0)
    return shares


def _batches(runs: Sequence[BatchRun], seed: int) -> list[BatchCell]:
    return [
        batch_cell([run for run in runs if run.contestant == name], seed)
        for name in dict.fromkeys(run.contestant for run in runs)
    ]


def batch_cell(runs: Sequence[BatchRun], seed: int) -> BatchCell:
    """The figures of one method's batch runs."""
    rates = {
        (run.size, run.group, run.repeat): run.tokens / run.seconds
        for run in runs
        if run.tokens and run.seconds > 0
    }
    size = max(run.size for run in runs)
    groups: dict[int, list[float]] = defaultdict(list)
    for (width, group, repeat), rate in rates.items():
        if width == size and (1, group, repeat) in rates:
            groups[group].append(rate / rates[1, group, repeat])
    middle = {
        width: median([rate for (w, _, _), rate in rates.items() if w == width] or [0.0])
        for width in (1, size)
    }
    ratio = median_ratio(list(groups.values()), seed)
    return BatchCell(runs[0].contestant, size, middle[1], middle[size], ratio)
