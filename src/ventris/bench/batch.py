"""Batch mode: total tokens a second of prompts side by side, against one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from ventris.bench.contestant import Limits
from ventris.bench.own import OwnMethod
from ventris.bench.race import Progress
from ventris.bench.record import BatchRun
from ventris.bench.schedule import rotated
from ventris.engine.batch import Event
from ventris.engine.errors import VentrisError


def measure_batches(
    methods: Sequence[OwnMethod],
    prompts: Sequence[Sequence[int]],
    size: int,
    repeats: int,
    max_new_tokens: int,
    progress: Progress | None = None,
) -> list[BatchRun]:
    """Decode groups of ``size`` prompts, at batch 1 and at batch ``size`` in turn.

    Outputs go on after end tokens, so that the batch stays full. What counts is the time in which all of
    a batch's requests decode: from the last one's first token to the first one's end.

    Args:
        prompts: Token ids; they are used again from the beginning where a group is not full.
    """
    count = max(len(prompts) // size, 1)
    groups = [[prompts[(g * size + i) % len(prompts)] for i in range(size)] for g in range(count)]
    limits = Limits(max_new_tokens, frozenset())
    jobs = [(method, width) for method in methods for width in (1, size)]
    total, done = len(groups) * repeats * len(jobs), 0
    runs = []
    for index, group in enumerate(groups):
        for repeat in range(repeats):
            for method, width in rotated(jobs, index + repeat):
                if progress:
                    progress(f"batch of {width}: {method.name}", done, total)
                done += 1
                tokens, seconds = 0, 0.0
                for start in range(0, size, width):
                    more = _together(method, group[start : start + width], limits)
                    tokens, seconds = tokens + more[0], seconds + more[1]
                runs.append(
                    BatchRun(
                        contestant=method.name,
                        group=index,
                        repeat=repeat,
                        size=width,
                        tokens=tokens,
                        seconds=seconds,
                    )
                )
    return runs


def _together(method: OwnMethod, prompts: Sequence[Sequence[int]], limits: Limits) -> tuple[int, float]:
    """Tokens and seconds while all of the prompts were decoding side by side."""
    engine = method.model.engine(max_batch=len(prompts))
    for prompt in prompts:
        engine.add(method.request(prompt, limits))
    first: set[int] = set()
    tokens, started, ended = 0, 0.0, 0.0
    try:
        while engine.busy:
            events = engine.step()
            _raise_failure(events)
            if len(first) == len(prompts):
                tokens += sum(len(event.tokens) for event in events)
                ended = perf_counter()
                if any(event.finished for event in events):
                    break
                continue
            first |= {id(event.completion) for event in events if event.tokens}
            if len(first) == len(prompts):
                started = ended = perf_counter()
    finally:
        engine.close()
    return tokens, ended - started


def _raise_failure(events: Sequence[Event]) -> None:
    for event in events:
        if event.completion.error is not None:
            raise VentrisError(event.completion.error)
