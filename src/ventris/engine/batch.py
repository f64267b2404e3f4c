"""The engine: requests join and leave between steps, and share each step's forward."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import getattr_static
from time import perf_counter
from typing import Any

from ventris.engine.cache import KVCache
from ventris.engine.errors import BadInput
from ventris.engine.ledger import MemoryLedger
from ventris.engine.parts import Commit, DraftCall, Drafter, DraftRecord, Load, RequestView, StepCost
from ventris.engine.prefix import PrefixStore, shared_length
from ventris.engine.randomness import Purpose
from ventris.engine.request import Completion, FinishReason, Request, Stats, check_tokens
from ventris.engine.room import HIDDEN_ROWS, Room
from ventris.engine.sampling import SamplingState
from ventris.engine.step import PARTS, Running, commit, draft, emit, score, settle, verify
from ventris.engine.stream import Stream
from ventris.engine.target import Target
from ventris.engine.text import Detokenizer, StopMatcher
from ventris.engine.tree import TokenTree
from ventris.engine.walk import Walk

WORTH_WAITING = 32
"""Shared prompt tokens from which a request waits for another one that is just computing them."""


@dataclass(slots=True)
class Event:
    """What a step brought for one request.

    Attributes:
        text: New text that is safe to show.
        sources: Where each of the new tokens came from.
    """

    completion: Completion
    tokens: list[int]
    text: str
    sources: list[str]
    finished: bool


class Engine:
    """Runs requests on one target.

    Args:
        target: The model that decides.
        max_batch: Requests that decode side by side; others wait their turn.
        chunk: Prompt tokens read in one step, all requests together.
        ledger: Books the memory of caches and passes; give it a limit to bound it. A request is then let in
            when all is reserved that it needs without drafts, and drafts get what is left.
        prefix_bytes: How much memory finished requests' caches may keep for later prompts.
        detokenizer: Makes a detokenizer for one request; needed for text and stop strings.
        clock: Seconds from any beginning; simulations bring their own.
    """

    def __init__(
        self,
        target: Target,
        max_batch: int = 8,
        chunk: int = 128,
        ledger: MemoryLedger | None = None,
        prefix_bytes: int = 0,
        detokenizer: Callable[[], Detokenizer] | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        if max_batch < 1 or chunk < 1:
            raise BadInput("max_batch and chunk must be 1 or more")
        self.target = target
        self.max_batch = max_batch
        self.chunk = chunk
        self.ledger = ledger if ledger is not None else MemoryLedger()
        self.prefixes = PrefixStore(prefix_bytes)
        self.running: list[Running] = []
        self.draft_seconds: dict[str, float] = {}
        self._waiting: deque[tuple[Request, Completion, float]] = deque()
        self._detokenizer = detokenizer
        self._clock = clock
        self._room = Room(target, self.ledger)
        self._last: StepCost | None = None

    # Requests in and out.

    def check(self, request: Request) -> None:
        """Refuse a request that cannot be served; safe to call from any thread.

        Raises:
            BadInput, Incompatible: one line that says why; :class:`~ventris.engine.errors.OverBudget` if it
                needs more memory than the ledger's limit.
        """
        request.check()
        room = self.target.context_length - len(request.prompt)
        if room < 1:
            raise BadInput(
                f"the prompt has {len(request.prompt)} tokens, but the model's context holds "
                f"{self.target.context_length}; shorten the prompt"
            )
        check_tokens(request.prompt, self.target.vocab_size, "prompt", request.embeddings)
        # Biases and words are checked where they are prepared.
        SamplingState(
            request.sampling, (), sorted(request.end_ids), request.max_new_tokens, self.target.vocab_size
        )
        self._room.check(request, len(request.prompt) + min(request.max_new_tokens, room))
        if request.stop and self._detokenizer is None:
            raise BadInput("stop strings need an engine with a detokenizer; give stop token ids instead")

    def add(self, request: Request) -> Completion:
        """Queue a request and return the completion that it will fill.

        Raises:
            BadInput, Incompatible: if it cannot be served; nothing is queued then.
        """
        self.check(request)
        room = self.target.context_length - len(request.prompt)
        request.max_new_tokens = min(request.max_new_tokens, room)
        completion = Completion(
            request.prompt,
            guarantee=request.guarantee(),
            stats=Stats(prompt_tokens=len(request.prompt), seconds=dict.fromkeys(PARTS, 0.0)),
            logprobs=[] if request.logprobs is not None else None,
            trace=request.trace,
        )
        self._waiting.append((request, completion, self._clock()))
        return completion

    def cancel(self, completion: Completion) -> None:
        """End a request now; its memory is free when this returns."""
        for waiting in [entry for entry in self._waiting if entry[1] is completion]:
            self._waiting.remove(waiting)
            completion.finish_reason = "cancelled"
        for running in [r for r in self.running if r.completion is completion]:
            self._cut(running, "cancelled")

    @property
    def busy(self) -> bool:
        return bool(self.running or self._waiting)

    @property
    def waiting(self) -> int:
        """Requests that were added and have not begun."""
        return len(self._waiting)

    def run(self) -> Iterator[Event]:
        """Step until nothing is left to do, yielding events as they come."""
        while self.busy:
            yield from self.step()

    def close(self) -> None:
        """Cancel everything and give all memory back."""
        for _, completion, _ in self._waiting:
            completion.finish_reason = "cancelled"
        self._waiting.clear()
        for running in list(self.running):
            self._cut(running, "cancelled")
        self.prefixes.clear()
        self._room.forget_weights()

    # One step.

    def step(self) -> list[Event]:
        """Advance every running request by one step."""
        started = self._clock()
        events = self._admit()
        chunk = self._room.chunk(self.running, self.chunk)
        deciding, reading = self._divide(chunk)
        others = sum(count for _, count in reading) + sum(len(r.stream.pending) - 1 for r in deciding)
        drafts = self._room.drafts(deciding, others, chunk)
        load = Load(len(deciding), others, self.ledger.left, self.draft_seconds, self._last, drafts)
        with self.ledger.keeping(self._room.step(deciding, others, chunk, drafts)):
            return [*events, *self._advance(started, deciding, reading, load, chunk)]

    def _advance(
        self,
        started: float,
        deciding: Sequence[Running],
        reading: Sequence[tuple[Running, int]],
        load: Load,
        chunk: int,
    ) -> list[Event]:
        """Draft, score, verify and commit."""
        events: list[Event] = []
        context = sum(running.stream.cache.length for running in self.running)
        calls: dict[str, DraftCall] = {}
        drafting = self._clock()
        try:
            trees = draft(deciding, load, calls.__setitem__, self._clock)
        except MemoryError:
            # A drafter found no room; the next step may have some.
            trees = [TokenTree.root(running.stream.pending[-1]) for running in deciding]
            for running in deciding:
                running.stream.discard()
        scoring = self._clock()
        try:
            scored, read = score(deciding, trees, reading, chunk)
        except MemoryError as error:
            return self._give_way(error)
        verifying = self._clock()
        walks: list[tuple[Running, Walk, Exception | None]] = []
        guide_seconds = 0.0
        for entry in scored:
            walk, failure = verify(entry)
            if failure is None:
                commit(entry, walk)
            guide_seconds += walk.guide_seconds
            walks.append((entry.running, walk, failure))
        for (running, count), result in zip(reading, read, strict=True):
            fed = running.stream.pending[:count]
            running.stream.fed(count)
            if running.drafter is not None:
                running.drafter.observe(running.draft_state, Commit(None, (), None, fed, result.hidden))
        verified = self._clock()
        nodes = sum(count for _, count in reading)
        nodes += sum(entry.running.stream.lead + len(entry.tree) for entry in scored)
        self._last = StepCost(len(deciding), nodes, context, verified - scoring, calls)
        for drafter, call in calls.items():
            known = self.draft_seconds.get(drafter, call.seconds)
            self.draft_seconds[drafter] = known + 0.1 * (call.seconds - known)
        for running, walk, failure in walks:
            if running.drafter is not None and failure is None:
                running.request.policy.observe(running.record, walk.tree, walk.path, verified - drafting)
            emit(running, walk, len(walks))
            events.append(self._news(running) if failure is None else self._cut(running, "error", failure))
        ended = self._clock()
        times = {
            "draft": scoring - drafting,
            "target": verifying - scoring,
            "guide": guide_seconds,
            "verify": verified - verifying - guide_seconds,
            "other": (drafting - started) + (ended - verified),
        }
        for running, walk, _ in walks:
            seconds = running.completion.stats.seconds
            for part, spent in times.items():
                seconds[part] += spent
            if running.request.trace is not None and walk.taken:
                running.request.trace.steps[-1].seconds = times
        return events

    def _divide(self, room: int) -> tuple[list[Running], list[tuple[Running, int]]]:
        """Who decides on a token in this step, and who reads how many of ``room`` prompt tokens.

        Those who read share the chunk evenly, so a short prompt need not wait for a long one.
        """
        deciding = [running for running in self.running if not running.reading]
        readers = sorted((r for r in self.running if r.reading), key=lambda r: len(r.stream.pending))
        reading = []
        for place, running in enumerate(readers):
            waiting = len(running.stream.pending) - 1
            # Nobody gets nothing: a step reads at least one token of every prompt.
            share = max(room // (len(readers) - place), 1)
            room = max(room - min(waiting, share), 0)
            if waiting <= share:
                deciding.append(running)
            else:
                reading.append((running, share))
        return deciding, reading

    def _news(self, running: Running) -> Event:
        """What has come for a request since the last time; one that is done leaves."""
        completion = running.completion
        if completion.finish_reason is not None:
            self._finish(running)
        tokens, sources, text = running.new_tokens, running.new_sources, running.piece
        running.new_tokens, running.new_sources, running.piece = [], [], ""
        now = self._clock() - running.admitted
        if tokens and len(tokens) == len(completion.tokens):
            completion.stats.first_token_seconds = now
        completion.stats.total_seconds = now
        completion.text += text
        return Event(completion, tokens, text, sources, completion.finish_reason is not None)

    def _cut(self, running: Running, reason: FinishReason, error: Exception | None = None) -> Event:
        """End a request where it stands; what was settled is handed out, and may have been its end."""
        settle(running)
        completion = running.completion
        if completion.finish_reason is None:
            completion.finish_reason = reason
            if error is not None:
                # Without its traceback, which would keep caches alive.
                completion.error, completion.exception = str(error), error.with_traceback(None)
        return self._news(running)

    # Admission and leaving.

    def _admit(self) -> list[Event]:
        events = []
        while self._waiting and len(self.running) < self.max_batch:
            request, completion, _ = self._waiting[0]
            if self._prefix_is_coming(request):
                break
            rows_were_kept = self.prefixes.nbytes > 0
            try:
                running = self._start(request, completion)
                self.ledger.keep(self._room.standing(running))
            except MemoryError as error:
                if self.running or rows_were_kept:
                    # With fewer rows kept, those that it went on from perhaps, there is more room.
                    self.prefixes.shrink()
                    break
                events.append(self._refuse(error))
                continue
            except Exception as error:
                # Whatever a part raises, a guide say, belongs to this request alone.
                events.append(self._refuse(error))
                continue
            self._waiting.popleft()
            self.running.append(running)
        return events

    def _refuse(self, error: Exception) -> Event:
        """End the request at the head of the queue, which cannot be started."""
        _, completion, _ = self._waiting.popleft()
        completion.finish_reason = "error"
        # Without its traceback, which would keep caches alive.
        completion.error, completion.exception = str(error), error.with_traceback(None)
        return Event(completion, [], "", [], True)

    def _prefix_is_coming(self, request: Request) -> bool:
        """True if a running request is reading a beginning that this one shares."""
        if not request.share_prefix:
            return False
        prompt = list(request.prompt)
        for running in self.running:
            if running.reading and _may_share(running.request, request):
                shared = shared_length(list(running.request.prompt), prompt)
                if shared - running.stream.cache.length >= WORTH_WAITING:
                    return True
        return False

    def _start(self, request: Request, completion: Completion) -> Running:
        tokens = list(request.prompt)
        view = RequestView(
            self.target,
            request.prompt,
            tokens,
            request.sampling,
            request.max_new_tokens,
            request.end_ids,
            self.ledger,
            getattr(request.verifier, "draft_purpose", Purpose.DRAFT),
            getattr(request.verifier, "reads_beliefs", False),
        )
        sampling = SamplingState(
            request.sampling,
            request.prompt,
            sorted(request.end_ids),
            request.max_new_tokens,
            self.target.vocab_size,
        )
        self._room.weigh(request)
        cache = self._shared_cache(request, tokens)
        own_rows = view.rows - (cache.length if cache is not None else 0)
        while self._room.crowded(own_rows) and self.prefixes.shrink():
            pass
        with self.ledger.keeping(self._room.least(own_rows)):
            guides = [(guide.name, guide.start(view)) for guide in sorted(request.guides, key=_masks)]
        # What the text needs goes before drafts.
        with self.ledger.keeping(self._room.least(own_rows, guides)):
            drafter, draft_state = self._start_drafter(request, view)
        scratch = self._room.scratch(own_rows, guides)
        capacity = view.rows + scratch
        if cache is not None:
            completion.stats.reused_tokens = cache.length
            cache.expect(capacity)
        stream = Stream(self.target, tokens, request.embeddings, cache, capacity, self.ledger)
        stream.cache.reserve(1)
        detokenizer = self._detokenizer() if self._detokenizer else None
        return Running(
            request=request,
            view=view,
            stream=stream,
            sampling=sampling,
            completion=completion,
            guides=guides,
            drafter=drafter,
            draft_state=draft_state,
            record=DraftRecord(view, drafter.name if drafter else ""),
            detokenizer=detokenizer,
            stops=StopMatcher(request.stop),
            admitted=self._clock(),
            scratch=scratch,
        )

    def _start_drafter(self, request: Request, view: RequestView) -> tuple[Drafter | None, Any]:
        """The request's drafter with its state, or ``None`` where there is none or no memory for it."""
        if request.drafter is None:
            return None, None
        hidden = self._room.hidden(view, request.drafter.taps)
        try:
            with self.ledger.keeping(hidden):
                state = request.drafter.start(view)
            self.ledger.charge(HIDDEN_ROWS, hidden)
        except MemoryError:
            return None, None
        return request.drafter, state

    def _shared_cache(self, request: Request, tokens: list[int]) -> KVCache | None:
        """A fork of the longest known cache for a beginning of the prompt, the root left out."""
        if not request.share_prefix or request.embeddings or (request.drafter and request.drafter.taps):
            # A drafter that reads hidden rows needs them for the whole prompt.
            return None
        best, source = self.prefixes.match(tokens, request.prefix_scope)
        for running in self.running:
            if not _may_share(running.request, request):
                continue
            held = running.stream.cache
            shared = min(shared_length(running.view.tokens, tokens), held.length)
            if shared > best:
                best, source = shared, held
        best = min(best, len(tokens) - 1)
        if source is None or best < 1:
            return None
        fork = source.fork()
        fork.truncate(best)
        return fork

    def _give_way(self, error: MemoryError) -> list[Event]:
        """Free memory in the middle of a step: kept prefixes first, then the youngest request."""
        for running in self.running:
            running.stream.discard()
            for _, state in running.guides:
                for stream in getattr(state, "streams", ()):
                    stream.discard()
        if self.prefixes.shrink():
            return []
        return [self._cut(self.running[-1], "error", error)]

    def _finish(self, running: Running) -> None:
        completion = running.completion
        if running.detokenizer is not None and not running.stops.stopped:
            running.piece += running.stops.push(running.detokenizer.finish()) + running.stops.flush()
        # Looked for without asking: an answer may take seconds, and others wait for the next step.
        completion.verdicts = [
            partial(getattr, state, "valid")
            for _, state in running.guides
            if getattr_static(state, "valid", None) is not None
        ]
        self.running.remove(running)
        self.ledger.keep(-self._room.standing(running))
        self.ledger.charge(HIDDEN_ROWS, -self._room.hidden(running.view, running.taps))
        cache = running.stream.cache
        kept = running.view.tokens[: cache.length]
        whole = (
            completion.finish_reason in ("stop", "length") and not running.request.embeddings and cache.length
        )
        if self.prefixes.limit and whole and running.request.share_prefix:
            self.prefixes.put(kept, cache, running.request.prefix_scope)
        else:
            cache.release()
        for _, state in running.guides:
            for stream in getattr(state, "streams", ()):
                stream.cache.release()
        finish = getattr(running.drafter, "finish", None)
        if finish is not None:
            finish(running.draft_state)


def _may_share(running: Request, request: Request) -> bool:
    """True if a running request's cache rows may serve another one."""
    return running.share_prefix and not running.embeddings and running.prefix_scope == request.prefix_scope


def _masks(guide: object) -> bool:
    return bool(getattr(guide, "masks", False))
