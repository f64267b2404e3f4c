"""Running a study: let the models write, note every token, and compute what the report shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ventris.bench.prepare import load_model, ready_threads
from ventris.bench.prompts import load_questions
from ventris.bench.race import asker
from ventris.engine.errors import BadInput
from ventris.engine.request import Completion
from ventris.guide.fuse import Fuse
from ventris.model import Model
from ventris.models.cache_folder import ready_folder
from ventris.study.law import LawFound, find_law
from ventris.study.profiles import profile
from ventris.study.quality import likenesses, mean_nats
from ventris.study.record import Pair, StudyReport
from ventris.study.routed import Decoding, RoutedRuns, decode_with_routers
from ventris.study.routers import LEARNED, FittedRouters, fit_routers
from ventris.study.seen_tokens import Answer, SeenTokens, see
from ventris.study.settings import Method, StudySettings
from ventris.study.shares import resamples
from ventris.study.small_models import SmallModel, load_small, size_of

Progress = Callable[[str, int, int], None]
"""Told what is running, how much is done, and how much there is."""

DECODED = ("confidence", LEARNED)
"""Routers that are decoded with: the one that needs no training, and the trained one."""

FEW_ANSWERS = 30
"""Below it the report warns."""


@dataclass(frozen=True, slots=True)
class Study:
    """A report, and the tokens behind each of its pairs."""

    report: StudyReport
    seen: list[SeenTokens]


def run_study(settings: StudySettings, progress: Progress | None = None) -> Study:
    """Load the models and study them.

    Raises:
        BadInput: if a model, the prompts or the folder for the report cannot be used.
    """
    questions = load_questions(settings.data, settings.categories, settings.per_category, settings.template)
    if settings.out is not None:
        ready_folder(settings.out)
    with ready_threads(settings):
        model = load_model(settings, progress=progress)
        small = [load_small(model, name, settings.dtype) for name in settings.small]
        tuned = None if settings.tuned is None else load_small(model, settings.tuned, settings.dtype)
        ask = asker(model.tokenizer)
        prompts = [ask(question).prompt(0) for question in questions]
        size = size_of(model.target, settings.model)
        return study(model, size, small, prompts, settings, tuned, progress)


def study(
    model: Model,
    parameters: int,
    small: Sequence[SmallModel],
    prompts: Sequence[Sequence[int]],
    settings: StudySettings,
    tuned: SmallModel | None = None,
    progress: Progress | None = None,
) -> Study:
    """Study small models beside a large one.

    Args:
        model: The large model.
        parameters: Its size.
        small: In the order of the report; routers are tried with the first.
        prompts: Token ids.
        tuned: The first small model after tuning, for ``proxy``.
        progress: Told how many of the answers are there.

    Raises:
        BadInput: if there is no prompt or no small model, or an answer does not fit into a small model.
    """
    if not prompts or not small:
        raise BadInput("a study needs prompts and small models; give at least one of each")
    plan = [(method, one) for method in settings.methods for one in _of_method(method, small)]
    total = len(prompts) * (len(plan) + 1)
    tell = progress or (lambda what, done, total: None)

    tell("the large model's answers", 0, total)
    own = write(model, prompts, settings.max_new_tokens)
    nats = _quality(model, own, own)[1]
    pairs: list[Pair] = []
    seen: list[SeenTokens] = []
    for number, (method, one) in enumerate(plan, start=1):
        tell(f"{method} with {one.name}", number * len(prompts), total)
        # In proxy tuning it is the tuned model that writes fast.
        fast = tuned if method == "proxy" and tuned is not None else one
        answers, likeness, text_nats = own, 100.0, nats
        if method != "oracle":
            guide = Fuse(one.target, method, tuned=fast.target if method == "proxy" else None)
            answers = write(model, prompts, settings.max_new_tokens, guide)
            likeness, text_nats = _quality(model, answers, own)
        seen.append(see(fast.target, answers))
        found, cut = profile(seen[-1], settings.seed), sum(answer.cut for answer in answers)
        ratio, size = parameters / fast.parameters, fast.parameters
        pairs.append(
            Pair(method, fast.name, fast.kind, size, ratio, len(prompts), cut, likeness, text_nats, found)
        )

    fitted = fit_routers(see(small[0].target, own), settings.seed)
    routed = None
    if not isinstance(fitted, str) and settings.rates:
        tell("decoding with routers", total - len(prompts), total)
        routed = _routed(model, small[0], own, fitted, settings)
    tell("done", total, total)
    report = StudyReport(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=Path(settings.model).name,
        parameters=parameters,
        computed=_computed(model),
        prompts=f"{len(prompts)} of {Path(settings.data).name if settings.data else 'the built-in prompts'}",
        settings=settings.model_dump(exclude={"out"}),
        pairs=pairs,
        laws=_laws(pairs, seen, settings),
        routers=fitted if isinstance(fitted, str) else fitted.found,
        routed=routed,
        warnings=_warnings(pairs, settings, small),
    )
    return Study(report, seen)


def write(
    model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int, guide: Fuse | None = None
) -> list[Answer]:
    """Greedy answers of the large model, through a guide where one is given.

    Raises:
        VentrisError, MemoryError: if a prompt cannot be answered.
    """
    done: list[Completion] = model.generate(
        [list(prompt) for prompt in prompts],
        max_new_tokens=max_new_tokens,
        temperature=0.0,
        guides=[] if guide is None else [guide],
    )
    for completion in done:
        if completion.exception is not None:
            raise completion.exception
    return [
        Answer(prompt, list(completion.tokens), completion.finish_reason == "length")
        for prompt, completion in zip(prompts, done, strict=True)
    ]


def _of_method(method: Method, small: Sequence[SmallModel]) -> Sequence[SmallModel]:
    return small[:1] if method == "proxy" else small


def _quality(model: Model, answers: Sequence[Answer], own: Sequence[Answer]) -> tuple[float, float]:
    """Mean likeness to the large model's own answers, and nats a token under it."""
    texts = [answer.tokens for answer in answers]
    return float(np.mean(likenesses(texts, own))), mean_nats(model, texts, own)


def _laws(
    pairs: Sequence[Pair], seen: Sequence[SeenTokens], settings: StudySettings
) -> dict[str, LawFound | str]:
    """The law of each method that was tried with all small models."""
    laws: dict[str, LawFound | str] = {}
    for method in settings.methods:
        if method != "proxy":
            chosen = [
                (pair, tokens) for pair, tokens in zip(pairs, seen, strict=True) if pair.method == method
            ]
            laws[method] = _law(chosen, settings.seed)
    return laws


def _law(pairs: Sequence[tuple[Pair, SeenTokens]], seed: int) -> LawFound | str:
    answers = pairs[0][0].answers
    hits = np.stack([_count(seen, seen.mismatch.numpy(), answers) for _, seen in pairs])
    totals = np.stack([_count(seen, np.ones(len(seen)), answers) for _, seen in pairs])
    weights = resamples(answers, seed).astype(np.float64)
    return find_law([pair.ratio for pair, _ in pairs], hits, totals, weights)


def _routed(
    model: Model, small: SmallModel, own: Sequence[Answer], fitted: FittedRouters, settings: StudySettings
) -> RoutedRuns:
    """Decoding with the routers, on the answers that they were not fitted on."""
    held_out = sorted(set(fitted.judging.question.tolist()))
    decoding = Decoding(model, small.target, [own[i] for i in held_out], settings.max_new_tokens)
    chosen = {name: fitted.signals[name] for name in DECODED if name in fitted.signals}
    return decode_with_routers(decoding, small.name, chosen, fitted.fitting, settings.rates, settings.seed)


def _count(seen: SeenTokens, weights: np.ndarray, answers: int) -> np.ndarray:
    return np.bincount(seen.question.numpy(), weights=weights, minlength=answers)


def _computed(model: Model) -> str:
    dtype = str(getattr(model.target, "dtype", "")).removeprefix("torch.")
    return f"{dtype} on {model.target.device.type}".strip()


def _warnings(pairs: Sequence[Pair], settings: StudySettings, small: Sequence[SmallModel]) -> list[str]:
    said = []
    answers = pairs[0].answers
    if answers < FEW_ANSWERS:
        said.append(f"{answers} answers are few: take the intervals seriously")
    if cut := max(pair.cut for pair in pairs):
        said.append(
            f"up to {cut} of {answers} answers were cut at {settings.max_new_tokens} tokens; "
            "their places are those in the text up to there"
        )
    if len({one.kind for one in small}) > 1:
        said.append(
            "the small models are of different kinds, so what changes along the law is not their size alone"
        )
    if any(one.kind == "early exit" for one in small):
        said.append(
            "early exits are the large model's own first layers, which nobody trained to end there; "
            "a trained model of such a size would need the large one less often"
        )
    return said
