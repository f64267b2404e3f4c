"""SmartSpec's central claim: latency under load with draft lengths by goodput, against every fixed length.

Requests arrive at one engine as a Poisson process, from one at a time up to more than it can serve, and on a
trace whose load jumps. All settings get the same requests at the same moments.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from statistics import mean
from time import perf_counter
from typing import Any

from ventris.bench.arrivals import Time, WallTime, poisson, serve_arrivals
from ventris.bench.prepare import load_model
from ventris.bench.prompts import load_questions
from ventris.bench.race import asker
from ventris.bench.schedule import rotated
from ventris.bench.settings import read_settings
from ventris.cost import BatchLatency
from ventris.draft.stack import Stack
from ventris.engine.batch import Engine
from ventris.engine.errors import BadInput
from ventris.engine.parts import Drafter, Policy
from ventris.engine.request import Request
from ventris.engine.sampling import Sampling
from ventris.model import Model
from ventris.papers.reproduction import Reproduction, Row
from ventris.parts import build_drafter
from ventris.policy import AcceptanceThreshold, Fixed, SmartSpec
from ventris.testing.recorded import Priced, Recorded, RecordedDrafter, measured_price, record
from ventris.testing.simulated import SimulatedDrafter, SimulatedTarget, VirtualTime
from ventris.verify import Synthetic

FIGURE = (
    "mean request latency up to 3.2 times lower than without drafting; near the best fixed length at any load"
)

OFF, SMARTSPEC, THRESHOLD = "no drafting", "smartspec", "acceptance threshold"

QUIET, BUSY = 0.25, 1.5
"""The two loads of the trace that varies."""

PHASES = 6
"""How often the load of that trace changes."""

SIMULATED_ACCEPTANCES = (0.3, 0.6, 0.9)
SIMULATED_PROMPT = 64


def reproduce_smartspec(
    draft: str = "ngram:width=1",
    lengths: Sequence[int] = (1, 3, 5, 7),
    loads: Sequence[float] = (0.0, 0.5, 1.0, 1.5),
    requests: int = 24,
    max_new_tokens: int = 64,
    max_batch: int = 8,
    repeats: int = 1,
    simulate: bool = False,
    replay: bool = False,
    level_seconds: float = 0.0,
    data: str | None = None,
    seed: int = 0,
    **settings: Any,
) -> Reproduction:
    """Mean latency by load, with SmartSpec, fixed lengths, no drafts, and a threshold on acceptance.

    Args:
        draft: The drafter; chains compare best with fixed lengths.
        lengths: Fixed draft lengths.
        loads: Request rates as multiples of what the engine serves without drafting; 0 stands for one
            request at a time.
        requests: Requests at each load; the trace that varies takes twice as many.
        max_new_tokens: Output tokens of each.
        max_batch: Requests that decode side by side; the others wait.
        repeats: How often each setting meets each load.
        simulate: Let time go by the fitted latency model instead of a clock, with coins in place of texts.
        replay: Let time go by the fitted latency model, with the real texts and drafts of the prompts, which
            are recorded from the model first; greedy.
        level_seconds: When simulating with coins, what a level of drafting takes.
        data: Prompts as JSONL; the built-in ones when not given.
        seed: Of the arrivals.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.

    Raises:
        BadInput: for a load or a number that makes no sense.
    """
    _check(loads, lengths, min(requests, max_batch, repeats, max_new_tokens), level_seconds, simulate, replay)
    started = perf_counter()
    model = load_model(read_settings({**settings, "data": data}))
    # On the clock a curve that was taken while the machine was busy would mislead the policy.
    latency = model.batch_latency(again=not (simulate or replay))
    makers: dict[str, Callable[[], Policy]] = {
        OFF: lambda: Fixed(0, 0),
        **{f"length {k}": lambda k=k: Fixed(k, k) for k in lengths},  # type: ignore[misc]
        SMARTSPEC: lambda: SmartSpec(latency),
        THRESHOLD: AcceptanceThreshold,
    }
    place: _Place
    if simulate:
        place = _Simulated(latency, level_seconds, max_new_tokens, max_batch)
    elif replay:
        place = _Replayed(model, latency, draft, max_new_tokens, max_batch, data)
    else:
        place = _Real(model, draft, max_new_tokens, max_batch, data)
    # A first round warms caches and kernels up.
    place.serve(OFF, makers[OFF](), [], max_batch)
    rate = requests / place.serve(OFF, makers[OFF](), [], requests).seconds
    latencies: dict[str, dict[str, float]] = {}
    for turn, (title, rates) in enumerate(_arrivals(loads, rate, requests).items()):
        latencies[title] = _latencies(place, makers, rates, requests, repeats, seed, turn)
    notes = [
        f"{getattr(model.target, 'dtype', '')} on {model.target.device.type}".removeprefix("torch."),
        f"{place.name}, {max_batch} side by side, {max_new_tokens} tokens each; load 1: {rate:.2f} a second",
        *(
            f"{title}: " + ", ".join(f"{name} {value:.3g} s" for name, value in by_name.items())
            for title, by_name in latencies.items()
        ),
    ]
    return Reproduction("smartspec", FIGURE, _rows(latencies), perf_counter() - started, notes)


def _check(
    loads: Sequence[float],
    lengths: Sequence[int],
    smallest: int,
    level_seconds: float,
    simulate: bool,
    replay: bool,
) -> None:
    if min(loads, default=-1.0) < 0 or smallest < 1:
        raise BadInput(
            "loads must be 0 or more, and requests, max_batch, repeats and max_new_tokens 1 or more"
        )
    if not all(1 <= length <= 64 for length in lengths):
        raise BadInput("lengths must lie between 1 and 64; not drafting is among the settings in any case")
    if level_seconds and not simulate:
        raise BadInput("level_seconds needs simulate; elsewhere a drafter takes what it takes")
    if not 0 <= level_seconds < inf or not all(isfinite(load) for load in loads):
        raise BadInput("level_seconds and loads must be finite, and level_seconds 0 or more")
    if simulate and replay:
        raise BadInput("simulate and replay are two ways to let time go by a model; choose one")


def _arrivals(loads: Sequence[float], rate: float, requests: int) -> dict[str, list[float]]:
    """Rates at which the requests of each load arrive, by its title; none where they come one by one."""
    arrivals = {f"load {load:g}": [load * rate] * requests if load else [] for load in loads}
    phases = [load for _ in range(PHASES // 2) for load in (QUIET, BUSY)]
    each = max(2 * requests // PHASES, 1)
    return {**arrivals, "load that varies": [load * rate for load in phases for _ in range(each)]}


def _latencies(
    place: _Place,
    makers: dict[str, Callable[[], Policy]],
    rates: Sequence[float],
    requests: int,
    repeats: int,
    seed: int,
    turn: int,
) -> dict[str, float]:
    """Mean latency with each setting, in seconds; ``turn`` says which goes first."""
    found: dict[str, list[float]] = {name: [] for name in makers}
    for repeat in range(repeats):
        for name in rotated(list(makers), turn):
            moments = poisson(rates, seed + repeat) if rates else None
            found[name].append(place.serve(name, makers[name](), moments, len(rates) or requests).latency)
    return {name: mean(values) for name, values in found.items()}


def _rows(latencies: dict[str, dict[str, float]]) -> list[Row]:
    rows = []
    for title, found in latencies.items():
        fixed = {name: value for name, value in found.items() if name not in (SMARTSPEC, THRESHOLD)}
        best = min(fixed, key=fixed.__getitem__)
        ours = found[SMARTSPEC]
        rows.append(Row(f"mean latency, {title}, against the best fixed ({best})", ours, "s", fixed[best]))
        rows.append(Row(f"mean latency, {title}, against no drafting", ours, "s", fixed[OFF]))
        rows.append(Row(f"mean latency, {title}, against a threshold", ours, "s", found[THRESHOLD]))
    return rows


@dataclass(frozen=True, slots=True)
class _Round:
    """What a setting came to at one load: mean latency, and seconds from first arrival to last end."""

    latency: float
    seconds: float


class _Place(ABC):
    """Where requests are served: a real model on a clock, or a simulation of it."""

    name: str
    time: Time
    max_batch: int

    @abstractmethod
    def engine(self) -> Engine:
        """An engine with nothing in it."""

    @abstractmethod
    def request(self, number: int, drafting: bool, policy: Policy) -> Request:
        """The request of a number, the same each time."""

    def serve(self, name: str, policy: Policy, moments: Sequence[float] | None, count: int) -> _Round:
        """Serve ``count`` requests: at ``moments``, all at once if there are none, one by one if ``None``."""
        engine = self.engine()
        makers = [lambda number=number: self.request(number, name != OFF, policy) for number in range(count)]
        started = self.time()
        served = serve_arrivals(engine, makers, moments or [0.0] * count, self.time, moments is None)
        seconds = self.time() - started
        engine.close()
        return _Round(mean(each.seconds for each in served), seconds)


def _fitting_prompts(model: Model, tokens: int, data: str | None) -> list[list[int]]:
    """The prompts that leave room for the output."""
    ask = asker(model.tokenizer)
    room = model.target.context_length - tokens
    prompts = [ask(question).prompt(0) for question in load_questions(data)]
    fitting = [prompt for prompt in prompts if len(prompt) <= room]
    if not fitting:
        raise BadInput(f"no prompt leaves {tokens} tokens of the model's context; ask for fewer")
    return fitting


class _Real(_Place):
    def __init__(self, model: Model, draft: str, tokens: int, max_batch: int, data: str | None) -> None:
        self.name = f"draft {draft}"
        self.time = WallTime()
        self.max_batch = max_batch
        self.model = model
        self.draft = draft
        self.tokens = tokens
        self.prompts = _fitting_prompts(model, tokens, data)

    def engine(self) -> Engine:
        return self.model.engine(self.max_batch)

    def request(self, number: int, drafting: bool, policy: Policy) -> Request:
        request = self.model.request(
            self.prompts[number % len(self.prompts)],
            max_new_tokens=self.tokens,
            ignore_eos=True,
            draft=self.draft if drafting else None,
            policy=policy,
        )
        # Prompts come again; what is kept of them would favour whoever comes later.
        request.share_prefix = False
        return request


class _Replayed(_Place):
    """Drafters without a model draft as ever; what one with a model drafts is recorded, and priced."""

    def __init__(
        self, model: Model, latency: BatchLatency, draft: str, tokens: int, max_batch: int, data: str | None
    ) -> None:
        self.name = f"simulated time, real texts and drafts of {draft}"
        self.time: VirtualTime = VirtualTime()
        self.max_batch = max_batch
        self.tokens = tokens
        self.target = SimulatedTarget(self.time, latency, model.target.vocab_size)
        prompts = _fitting_prompts(model, tokens, data)
        whole = build_drafter(draft, model.workshop)
        drafters = whole.drafters if isinstance(whole, Stack) else [whole]
        modelled = [drafter for drafter in drafters if getattr(drafter, "models", ())]
        self.recordings = record(model, prompts, modelled, tokens, max_batch)
        priced: list[Drafter] = []
        for drafter in drafters:
            price = measured_price(model, prompts, drafter, max_batch)
            own = drafter in modelled
            served = RecordedDrafter(drafter.name, drafter.shape, self.recordings) if own else drafter
            priced.append(Priced(served, self.time, price))
        self.drafter: Any = priced[0] if len(priced) == 1 else Stack(priced)

    def engine(self) -> Engine:
        return Engine(self.target, self.max_batch, clock=self.time)

    def request(self, number: int, drafting: bool, policy: Policy) -> Request:
        recording = self.recordings[number % len(self.recordings)]
        return Request(
            recording.prompt,
            Recorded(recording),
            policy,
            max_new_tokens=self.tokens,
            drafter=self.drafter if drafting else None,
            share_prefix=False,
        )


class _Simulated(_Place):
    def __init__(self, latency: BatchLatency, level_seconds: float, tokens: int, max_batch: int) -> None:
        self.name = "simulated time, drafts kept by coins of " + ", ".join(map(str, SIMULATED_ACCEPTANCES))
        self.time: VirtualTime = VirtualTime()
        self.max_batch = max_batch
        self.tokens = tokens
        self.target = SimulatedTarget(self.time, latency)
        self.drafter = SimulatedDrafter(self.time, level_seconds)
        kinds = random.Random(0)
        self.chances = [kinds.choice(SIMULATED_ACCEPTANCES) for _ in range(1000)]

    def engine(self) -> Engine:
        return Engine(self.target, self.max_batch, clock=self.time)

    def request(self, number: int, drafting: bool, policy: Policy) -> Request:
        return Request(
            [1] * SIMULATED_PROMPT,
            Synthetic(self.chances[number % len(self.chances)]),
            policy,
            max_new_tokens=self.tokens,
            drafter=self.drafter if drafting else None,
            sampling=Sampling(seed=number),
            share_prefix=False,
        )
