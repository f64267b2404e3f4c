"""What every benchmark does before it measures: load, bind threads, ready the questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ventris.bench.contestant import Limits
from ventris.bench.machine import (
    available_cores,
    bound_threads,
    commit,
    memory_bytes,
    processor,
    system,
    versions,
)
from ventris.bench.question import Question
from ventris.bench.race import Progress, asker
from ventris.bench.record import Environment
from ventris.bench.settings import BenchSettings

if TYPE_CHECKING:
    from ventris.model import Model
    from ventris.models.load import DType, Kernels

_RUNTIMES = {"NativeDecoder": "native", "TorchDecoder": "torch", "TransformersTarget": "transformers"}


class ModelSettings(Protocol):
    """What the settings of every benchmark say of the model."""

    @property
    def model(self) -> str: ...

    @property
    def dtype(self) -> DType: ...

    @property
    def kernels(self) -> Kernels: ...

    @property
    def device(self) -> str: ...

    @property
    def threads(self) -> int | None: ...


def thread_count(settings: ModelSettings) -> int:
    """Threads for every runtime."""
    return settings.threads or available_cores()


@contextmanager
def ready_threads(settings: ModelSettings) -> Iterator[int]:
    """Bind the threads of everything that is loaded inside, torch's among them."""
    import torch

    threads, before = thread_count(settings), torch.get_num_threads()
    with bound_threads(threads):
        torch.set_num_threads(threads)
        try:
            yield threads
        finally:
            torch.set_num_threads(before)


def load_model(
    settings: ModelSettings, dtype: DType | None = None, progress: Progress | None = None
) -> Model:
    """The model of the settings, perhaps in another number format.

    Raises:
        BadInput: if it cannot be loaded.
    """
    import ventris

    def told(what: str, share: float | None = None) -> None:
        if progress:
            progress(what, round(100 * (share or 0.0)), 100)

    return ventris.load(
        settings.model,
        dtype=dtype or settings.dtype,
        kernels=settings.kernels,
        device=settings.device,
        threads=thread_count(settings),
        progress=told,
    )


def sampling_of(settings: BenchSettings) -> dict[str, Any]:
    """Settings of every request."""
    return {"temperature": settings.temperature, "seed": settings.seed}


def limits_of(settings: BenchSettings, model: Model) -> Limits:
    """When outputs end."""
    ends = () if settings.ignore_eos or model.tokenizer is None else model.tokenizer.eos_ids
    return Limits(settings.max_new_tokens, frozenset(ends))


def longest_context(questions: Sequence[Question], model: Model, max_new_tokens: int) -> int:
    """Tokens that the longest of the conversations may come to, within the model's context.

    Other toolkits reserve their cache beforehand, and need no more than this.
    """
    ask = asker(model.tokenizer)
    longest = 0
    for question in questions:
        tokens = len(ask(question).prompt(0))
        if model.tokenizer is not None:
            # Later turns are counted without their place in the template, which a few tokens make up for.
            later = question.turns[1:]
            tokens += sum(len(model.tokenizer.encode(turn)) + max_new_tokens + 16 for turn in later)
        longest = max(longest, tokens + max_new_tokens)
    return min(-(-longest // 256) * 256, model.target.context_length)


def describe(model: Model, threads: int) -> Environment:
    """Where the figures come from; the load is filled in at the end."""
    import torch

    target, source = model.target, model.source
    place = target.device
    return Environment(
        cpu=processor(),
        cores=available_cores(),
        threads=threads,
        memory_bytes=memory_bytes(),
        gpu=torch.cuda.get_device_name(place) if place.type == "cuda" else None,
        system=system(),
        versions=versions(),
        commit=commit(),
        model=source.path.name if source is not None and source.path.exists() else type(target).__name__,
        model_file=source.kind if source is not None else None,
        fingerprint=source.fingerprint if source is not None else None,
        runtime=_RUNTIMES.get(type(target).__name__, type(target).__name__),
        kernel=str(getattr(target, "kernel", "")),
        dtype=str(getattr(target, "dtype", "")).removeprefix("torch."),
        weight_bytes=getattr(target, "weight_bytes", None),
    )
