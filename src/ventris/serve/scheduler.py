"""The thread that steps the engine: who is let in, who has to leave, and who is told what."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Thread
from time import monotonic
from typing import Protocol

from ventris.engine.batch import Engine, Event
from ventris.engine.errors import OverBudget
from ventris.engine.request import Completion, Request
from ventris.serve.errors import ApiError
from ventris.serve.fair_queue import FairQueue
from ventris.serve.job import Job, Update

logger = logging.getLogger("ventris.serve")

RATE_SECONDS = 10.0
"""Window of the tokens a second."""


class Observer(Protocol):
    """Is told what happens, on the scheduler's thread."""

    def stepped(self, deciding: int, tokens: int, seconds: float) -> None:
        """A step brought tokens for so many requests."""
        ...

    def finished(self, job: Job, index: int, completion: Completion, now: float) -> None:
        """An answer has ended, whichever way."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How busy the scheduler is.

    Attributes:
        running: Answers that are being decoded.
        queued: Answers that wait.
        cache_bytes: Memory of caches by owner.
        prefix_bytes: Of that, what finished requests left for later prompts.
        tokens_per_second: Over the last ten seconds.
    """

    running: int
    queued: int
    cache_bytes: dict[str, int]
    cache_limit: int | None
    prefix_bytes: int
    tokens_per_second: float


class Scheduler:
    """Runs the jobs of many clients on one engine, in a thread of its own.

    The engine batches them continuously, reads prompts in chunks and admits by its memory ledger. Here is
    decided who is next: clients take turns, one answer each. All methods may be called from any thread.

    Args:
        make_engine: Makes the engine; called again should a bug have broken it.
        max_queue: Answers that may wait.
        max_open: Answers that one key may have running or waiting.

    Attributes:
        observer: Is told what happens; set it before :meth:`start`.
    """

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        max_queue: int = 256,
        max_open: int = 64,
    ) -> None:
        self.max_queue = max_queue
        self.max_open = max_open
        self._make_engine = make_engine
        self.observer: Observer | None = None
        self._engine = make_engine()
        self._queue: FairQueue[tuple[Job, int]] = FairQueue()
        self._places: dict[int, tuple[Job, int]] = {}
        self._jobs: set[Job] = set()
        self._open: Counter[str] = Counter()
        self._leaving: dict[Job, Exception] = {}
        self._changed = Condition()
        self._draining = False
        self._stopped = False
        self._rates: deque[tuple[float, int]] = deque()
        self._cache_bytes: dict[str, int] = {}
        self._prefix_bytes = 0
        self._thread = Thread(target=self._run, name="ventris-scheduler", daemon=True)

    # For everybody.

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def check(self, request: Request) -> None:
        """Refuse a request that cannot be served at all.

        Raises:
            BadInput, Incompatible: as :meth:`Engine.check`.
            ApiError: if its caches can never fit the memory for them.
        """
        try:
            self._engine.check(request)
        except OverBudget as error:
            raise ApiError(400, str(error), "too_large", "max_tokens") from error

    def submit(self, job: Job) -> None:
        """Queue a job; its answers are told to ``job.tell``.

        Raises:
            ApiError: 503 while shutting down or when the queue is full, 429 when the key has too much open.
        """
        count = len(job.requests)
        with self._changed:
            if self._draining or self._stopped:
                raise shutting_down()
            if self._open[job.key] + count > self.max_open:
                raise ApiError(
                    429,
                    f"this key may have {self.max_open} answers open at a time; wait for some to finish",
                    "too_many_streams",
                )
            if len(self._queue) + count > self.max_queue + self._engine.max_batch:
                raise ApiError(503, "too many requests are waiting; try again later", "queue_full")
            self._open[job.key] += count
            self._jobs.add(job)
            for index in range(count):
                self._queue.put(job.key, (job, index))
            self._changed.notify()

    def cancel(self, job: Job, reason: Exception | None = None) -> None:
        """End a job before the next step; its memory is free then. Does nothing if it has ended."""
        with self._changed:
            if job in self._jobs:
                self._leaving.setdefault(job, reason or ApiError(499, "the client went away", "cancelled"))
                self._changed.notify()

    def drain(self) -> None:
        """Take no more jobs; those that were accepted go on."""
        with self._changed:
            self._draining = True

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def idle(self) -> bool:
        """True if nothing is running or waiting."""
        return not self._jobs

    def close(self, seconds: float = 5.0) -> None:
        """End all jobs with an error, give all memory back and stop the thread.

        Args:
            seconds: How long to wait for the end of a step. With a longer one the jobs are told all the same,
                and memory comes back when it ends.
        """
        with self._changed:
            self._draining = self._stopped = True
            self._changed.notify()
        if not self._thread.is_alive():
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            with self._changed:
                for job in self._jobs:
                    for index in job.open:
                        ended = Completion(job.requests[index].prompt, finish_reason="cancelled")
                        job.tell(Update(index, ended, finished=True, error=shutting_down()))
                    # What the step brings when it ends comes too late for anybody.
                    job.tell = _tell_nobody

    def snapshot(self) -> Snapshot:
        """How busy it is now."""
        with self._changed:
            now = monotonic()
            recent = [(when, tokens) for when, tokens in self._rates if now - when <= RATE_SECONDS]
            engine = self._engine
            return Snapshot(
                running=len(engine.running),
                queued=len(self._queue) + engine.waiting,
                cache_bytes=self._cache_bytes,
                cache_limit=engine.ledger.limit,
                prefix_bytes=self._prefix_bytes,
                tokens_per_second=sum(tokens for _, tokens in recent) / RATE_SECONDS,
            )

    # On the thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._stopped or self._leaving or self._queue or self._engine.busy):
                    self._changed.wait()
                if self._stopped:
                    break
                self._drop_leaving()
                self._expire()
                self._feed()
            if self._engine.busy:
                self._step()
            # Counted here, where nobody else changes the books.
            self._cache_bytes = dict(self._engine.ledger.held)
            self._prefix_bytes = self._engine.prefixes.nbytes
        with self._changed:
            self._leaving |= {job: shutting_down() for job in self._jobs}
            self._drop_leaving()
            self._engine.close()

    def _step(self) -> None:
        started = monotonic()
        try:
            events = self._engine.step()
        except Exception as error:
            # A bug. Nobody knows what state the engine is in, so everybody in it has to leave.
            logger.exception("the engine failed in a step")
            self._restart(error)
            return
        now = monotonic()
        with self._changed:
            for event in events:
                self._pass_on(event, now)
            tokens = sum(len(event.tokens) for event in events)
            self._rates.append((now, tokens))
            while now - self._rates[0][0] > RATE_SECONDS:
                self._rates.popleft()
        if self.observer is not None and tokens:
            self.observer.stepped(len(events), tokens, now - started)

    def _pass_on(self, event: Event, now: float) -> None:
        completion = event.completion
        job, index = self._places[id(completion)]
        if event.tokens:
            job.first_token.setdefault(index, now)
        step = completion.trace.steps[-1] if completion.trace is not None and event.tokens else None
        logprobs = completion.logprobs[-len(event.tokens) :] if completion.logprobs and event.tokens else ()
        update = Update(
            index, completion, event.text, event.tokens, event.sources, logprobs, step, event.finished
        )
        if event.finished:
            update.error = completion.exception
            self._leave(job, index, update, now)
        else:
            job.tell(update)

    def _drop_leaving(self) -> None:
        leaving, self._leaving = self._leaving, {}
        for job, reason in leaving.items():
            self._drop(job, reason)

    def _expire(self) -> None:
        now = monotonic()
        late = [job for job in self._jobs if job.deadline is not None and job.deadline <= now]
        for job in late:
            message = f"the answer was not finished by its deadline, after {now - job.submitted:.1f} s"
            self._drop(job, ApiError(408, message, "deadline_exceeded"))

    def _drop(self, job: Job, reason: Exception) -> None:
        self._queue.remove(lambda item: item[0] is job)
        now = monotonic()
        for index in sorted(job.open):
            completion = job.completions.get(index)
            if completion is None:
                completion = Completion(job.requests[index].prompt, finish_reason="cancelled")
            else:
                self._engine.cancel(completion)
            self._leave(job, index, Update(index, completion, finished=True, error=reason), now)

    def _feed(self) -> None:
        """Let the next ones in; one that waits for memory holds up those behind it, so that it gets there."""
        engine = self._engine
        if engine.waiting:
            return
        while self._queue and len(engine.running) + engine.waiting < engine.max_batch:
            job, index = self._queue.take()
            request = job.requests[index]
            try:
                completion = engine.add(request)
            except Exception as error:
                failed = Completion(request.prompt, finish_reason="error")
                self._leave(job, index, Update(index, failed, finished=True, error=error), monotonic())
                continue
            job.completions[index] = completion
            self._places[id(completion)] = (job, index)

    def _leave(self, job: Job, index: int, update: Update, now: float) -> None:
        completion = update.completion
        self._places.pop(id(completion), None)
        job.open.discard(index)
        self._open[job.key] -= 1
        if not self._open[job.key]:
            del self._open[job.key]
        if not job.open:
            self._jobs.discard(job)
        if self.observer is not None:
            self.observer.finished(job, index, completion, now)
        job.tell(update)

    def _restart(self, error: Exception) -> None:
        with self._changed:
            broken, self._engine = self._engine, self._make_engine()
            for job in {job for job, _ in self._places.values()}:
                self._drop(job, error)
        try:
            broken.close()
        except Exception:
            logger.exception("the broken engine could not be closed")


def _tell_nobody(update: Update) -> None:
    """Take the place of a client who has been told that it is over."""


def shutting_down() -> ApiError:
    """What clients are told while the server stops."""
    return ApiError(503, "the server is shutting down", "shutting_down")
