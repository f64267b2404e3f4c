"""Fitting the two thresholds of Big Little Decoder to a pair of models.

Kim et al. 2023 (arXiv 2302.07863), section 4: how unsure the small model must be to hand over, and how
unlikely a token must be to be rolled back, are chosen for each pair by trying a grid of both on tasks whose
answers are scored. What comes out is a YAML file of settings: ``--config`` of every command and ``--method``
of ``ventris bench`` take it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ventris.bench.contestant import Limits
from ventris.bench.methods import AUTOREGRESSIVE, Method
from ventris.bench.own import OwnMethod
from ventris.engine.errors import BadInput
from ventris.model import Model
from ventris.models.cache_folder import written_whole
from ventris.parts import options_of, parse, part_class
from ventris.train.fact_tasks import fact_tasks
from ventris.train.run import load_target
from ventris.train.scored import Outcome, ScoredTask, scored_answers, scored_facts
from ventris.train.texts import Progress
from ventris.train.threshold_settings import GridSettings, ThresholdSettings

PARTS = ("draft", "policy", "verifier")

TIMED = 6
"""Tasks on which the cost of a call and of a drafted token is measured."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A pair of thresholds.

    Attributes:
        confidence: Below it the small model hands over.
        nats: Above it the large model rolls back; with 0 it never keeps another token than its own.
        depth: Tokens that the small model writes in a row at most.
    """

    confidence: float
    nats: float
    depth: int

    def settings(self, draft: str) -> dict[str, Any]:
        """Settings of ``Model.generate``, and the entries of a method of ``ventris bench``."""
        return {
            "draft": reaching(draft, self.depth),
            "policy": f"confidence-stop:{self.confidence:g},depth={self.depth}",
            "verifier": f"threshold-rollback:{self.nats:g}",
        }

    def __str__(self) -> str:
        return f"confidence {self.confidence:g}, {self.nats:g} nats"


def reaching(draft: str, depth: int) -> str:
    """A drafter that drafts up to ``depth`` tokens ahead, unless its own options say how many."""
    (spec, *others) = parse(draft)
    known = options_of(part_class("drafter", spec.name)).model_fields
    if others or "depth" in spec.options or "depth" not in known:
        return draft
    return f"{draft}{',' if spec.options else ':'}depth={depth}"


@dataclass(frozen=True, slots=True)
class Costs:
    """What decoding costs one request alone, in seconds.

    Attributes:
        token: A token of plain decoding.
        call: A call of the target with a draft, drafting left out.
        draft: A run of the small model.
    """

    token: float
    call: float
    draft: float

    def speed(self, found: Outcome) -> float:
        """Estimated speed as a multiple of plain decoding's.

        The small model runs once for each drafted token and once more a call, for the token that it doubts.
        """
        calls = sum(found.calls)
        spent = calls * self.call + (found.drafted + calls) * self.draft
        return sum(found.tokens) * self.token / spent


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a grid of thresholds came to.

    Attributes:
        plain: Plain decoding.
        grid: Every pair that was tried.
        chosen: The fastest pair within the loss.
        exact: The fastest one of those with 0 nats, which lose nothing.
    """

    plain: Outcome
    grid: dict[Thresholds, Outcome]
    costs: Costs
    chosen: Thresholds
    exact: Thresholds

    def front(self) -> list[Thresholds]:
        """The pairs that no other beats in both quality and estimated speed, best quality first."""
        speed = {pair: self.costs.speed(found) for pair, found in self.grid.items()}
        best: list[Thresholds] = []
        for pair in sorted(self.grid, key=lambda pair: (-self.grid[pair].quality, -speed[pair])):
            if not best or speed[pair] > speed[best[-1]]:
                best.append(pair)
        return best


def try_grid(
    model: Model,
    draft: str,
    tasks: Sequence[ScoredTask],
    settings: GridSettings,
    progress: Progress | None = None,
    plain: Outcome | None = None,
) -> Fitted:
    """Decode the tasks with every pair of thresholds.

    Pairs with 0 nats are always tried: they lose nothing, so that there is always one to choose.

    Args:
        settings: Which pairs, and what the chosen one may lose.
        plain: What plain decoding made of the tasks, if that is known.
    """
    pairs = [
        Thresholds(confidence, nats, settings.depth)
        for confidence in settings.confidences
        for nats in sorted({0.0, *settings.distances})
    ]
    plain = plain or measure(model, tasks, settings)
    grid = {}
    for number, pair in enumerate(pairs):
        if progress:
            progress("trying thresholds", number, len(pairs))
        grid[pair] = measure(model, tasks, settings, **pair.settings(draft))
    costs = measure_costs(model, pairs[len(pairs) // 2].settings(draft), tasks[:TIMED], settings)
    chosen = fastest_within(grid, costs, plain, settings.loss)
    exact = fastest_within({p: found for p, found in grid.items() if not p.nats}, costs, plain, settings.loss)
    return Fitted(plain, grid, costs, chosen, exact)


def measure(model: Model, tasks: Sequence[ScoredTask], settings: GridSettings, **parts: Any) -> Outcome:
    """What greedy decoding with these parts makes of the tasks, several side by side."""
    answers = model.generate(
        [task.question for task in tasks],
        max_batch=settings.answer_batch,
        max_new_tokens=settings.max_new_tokens,
        **parts,
    )
    return Outcome.of(tasks, answers)


def measure_costs(
    model: Model, parts: dict[str, Any], tasks: Sequence[ScoredTask], settings: GridSettings
) -> Costs:
    """The cost of each kind of run, from tasks decoded alone, with and without drafts in turn."""
    ends = frozenset(model.tokenizer.eos_ids if model.tokenizer else ())
    limits = Limits(settings.max_new_tokens, ends)
    plain, drafting = OwnMethod(model, Method(AUTOREGRESSIVE)), OwnMethod(model, Method("bild", **parts))
    alone, drafted = [], []
    for task in tasks:
        prompt = list(model.request(task.question).prompt)
        alone.append(plain.decode(prompt, limits))
        drafted.append(drafting.decode(prompt, limits))
    calls = max(sum(done.decode_passes or 0 for done in drafted), 1)
    drafting_seconds = sum(done.parts.get("draft", 0.0) for done in drafted)
    return Costs(
        sum(done.clock.decode_seconds for done in alone) / max(sum(d.clock.decode_tokens for d in alone), 1),
        (sum(done.clock.decode_seconds for done in drafted) - drafting_seconds) / calls,
        drafting_seconds / (calls + sum(done.drafted for done in drafted)),
    )


def fastest_within(grid: dict[Thresholds, Outcome], costs: Costs, plain: Outcome, loss: float) -> Thresholds:
    """The pair with the best estimated speed of those that lose at most so many points."""
    good = [pair for pair, found in grid.items() if found.loss(plain)[0] <= loss]
    # 0 nats loses nothing but by the rounding of a runtime whose numbers depend on the batch.
    return max(good or [pair for pair in grid if not pair.nats], key=lambda pair: costs.speed(grid[pair]))


def train_thresholds(settings: ThresholdSettings, progress: Progress | None = None) -> Fitted:
    """Fit the thresholds of a pair, and write them as a file of settings.

    Raises:
        BadInput: for settings or data that cannot be used.
    """
    model = load_target(settings, progress)
    if settings.data is None:
        tasks = scored_facts(fact_tasks(settings.tasks, settings.seed, "test"))
    else:
        tasks = scored_answers(model, settings.data, settings.limit, settings.max_new_tokens)
    fitted = try_grid(model, settings.draft, tasks, settings, progress)
    write_thresholds(Path(settings.out).expanduser(), fitted, settings.draft)
    return fitted


def write_thresholds(path: Path, fitted: Fitted, draft: str) -> None:
    """Write the chosen thresholds as settings, with what was measured as remarks."""
    remarks = [
        "Thresholds of Big Little Decoder, fitted to this pair of models by 'ventris train thresholds'.",
        f"On {len(fitted.plain.scores)} tasks: {described(fitted, fitted.chosen)}",
        f"Plain decoding: quality {fitted.plain.quality:.1f} +- {fitted.plain.quality_error:.1f}.",
        "Settings that no other beats:",
        *(f"  {pair}: {described(fitted, pair)}" for pair in fitted.front()),
    ]
    text = "".join(f"# {line}\n" for line in remarks)
    with written_whole(path) as temporary:
        temporary.write_text(text + yaml.safe_dump(fitted.chosen.settings(draft), sort_keys=False), "utf-8")


def read_thresholds(path: str | Path) -> dict[str, str]:
    """Draft, policy and verifier from a file of fitted thresholds.

    Raises:
        BadInput: if it is none.
    """
    try:
        found = yaml.safe_load(Path(path).expanduser().read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"cannot read the thresholds in {path}: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict) or set(found) != set(PARTS):
        raise BadInput(f"{path} holds no fitted thresholds; make them with 'ventris train thresholds'")
    return {part: str(found[part]) for part in PARTS}


def described(fitted: Fitted, pair: Thresholds) -> str:
    """What a pair came to, in words."""
    found = fitted.grid[pair]
    lost, error = found.loss(fitted.plain)
    return (
        f"quality {found.quality:.1f} ({-lost:+.1f} +- {error:.1f}), {found.tokens_per_call:.2f} tokens a "
        f"call, about {fitted.costs.speed(found):.2f} times as fast as plain decoding"
    )
