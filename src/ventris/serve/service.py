"""Everything behind the HTTP side, put together once: pages and batch jobs plug in here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Thread
from time import monotonic, time
from typing import TYPE_CHECKING, Any, TypeVar

from ventris.engine.errors import VentrisError
from ventris.engine.ledger import MemoryLedger
from ventris.engine.request import Completion, Request
from ventris.serve.answers import Answer, TokenTexts
from ventris.serve.errors import ApiError
from ventris.serve.job import Job, Update
from ventris.serve.keys import ApiKeys
from ventris.serve.mailbox import Mailbox
from ventris.serve.metrics import Metrics
from ventris.serve.offered import Offered
from ventris.serve.requests import AnswerRequest, ChatRequest, CompletionRequest
from ventris.serve.scheduler import Scheduler, shutting_down
from ventris.serve.settings import MIB, ServerSettings
from ventris.serve.translate import Translator

if TYPE_CHECKING:
    from ventris.model import Model

logger = logging.getLogger("ventris.serve")

STEP_SECONDS = 1.0
"""That the step of the moment gets to end in when the grace is over."""

Result = TypeVar("Result")
AnswerT = TypeVar("AnswerT", bound=Answer)


class Service:
    """A model that answers many clients.

    Args:
        model: The loaded model.
        name: Its name for clients.
        settings: Limits.
        defaults: Settings of generations that clients do not set: keyword arguments of ``Model.generate``.
        keys: Who may ask; without any, everybody.
    """

    def __init__(
        self,
        model: Model,
        name: str,
        settings: ServerSettings,
        defaults: Mapping[str, Any] | None = None,
        keys: ApiKeys | None = None,
    ) -> None:
        self.model = model
        self.name = name
        self.settings = settings
        self.keys = keys if keys is not None else ApiKeys()
        self.created = int(time())
        self.defaults = dict(defaults or {})
        own = self.defaults.get("draft")
        drafts = [*([own] if isinstance(own, str) and own else []), *settings.offered_drafts]
        policy = self.defaults.get("policy")
        policies = [policy] if isinstance(policy, str) and policy else []
        self.offered = Offered(model, drafts, settings.compile_seconds, policies)
        self.translator = Translator(model, settings, self.offered, self.defaults)
        self.scheduler = Scheduler(self._engine, settings.max_queue, settings.max_streams)
        self.metrics = Metrics(self.scheduler.snapshot)
        self.scheduler.observer = self.metrics
        tokenizer = model.tokenizer
        ends = frozenset(tokenizer.eos_ids) if tokenizer is not None else frozenset()
        silent = frozenset(tokenizer.special_ids) if tokenizer is not None else frozenset()
        self.texts = TokenTexts(tokenizer, ends, ends | silent)
        # A schema may take seconds to compile; plain requests do not wait behind it.
        self._quick = ThreadPoolExecutor(2, "ventris-requests")
        self._guided = ThreadPoolExecutor(1, "ventris-guides")

    def _engine(self) -> Any:
        settings = self.settings
        return self.model.engine(
            settings.max_batch,
            # A budget for everything goes before one for caches alone.
            None if self.model.memory_budget is not None else MemoryLedger(settings.cache_mib * MIB),
            min(settings.prefix_mib, settings.cache_mib) * MIB,
            settings.chunk,
        )

    def prepare_parts(self) -> None:
        """Build the parts that clients will ask for first, so that none of them waits for it.

        Raises:
            BadInput, Incompatible: if the server's own settings do not fit together.
        """
        self.model.request([0], **{"temperature": 1.0, **self.defaults})
        for draft in self.offered.drafts:
            self.model.request([0], draft=draft)

    def start(self) -> None:
        """Begin to work."""
        self.scheduler.start()
        # No executor: the interpreter would wait for its threads when it ends.
        Thread(target=self._wake_compiler, daemon=True).start()

    def _wake_compiler(self) -> None:
        """Start the process that compiles guides and judges texts; its first answer takes a while."""
        with suppress(VentrisError):
            guide = self.offered.guide("json-schema", {"schema": {"type": "boolean"}})
            guide.bind(self.model.tokenizer).satisfied(b"true")

    def close(self) -> None:
        """End everything with an error and give memory back."""
        self.scheduler.close()
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._guided.shutdown(wait=False, cancel_futures=True)

    async def drain(self, grace: float, hurry: asyncio.Event) -> None:
        """Take no more requests, wait for those that run, and end with an error what is left after
        ``grace`` seconds, or once ``hurry`` is set.
        """
        self.scheduler.drain()
        end = monotonic() + grace
        while not (self.scheduler.idle or hurry.is_set()) and monotonic() < end:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(self.scheduler.close, STEP_SECONDS)

    @property
    def fingerprint(self) -> str:
        """Changes when answers to the same request may change."""
        source = self.model.source
        dtype = str(getattr(self.model.target, "dtype", "")).removeprefix("torch.")
        return f"{source.fingerprint[:12] if source is not None else 'local'}-{dtype}"

    # Requests.

    async def prepare(self, body: AnswerRequest, holder: str) -> list[Request]:
        """The engine's requests for a body; tokenizing and compiling happen on other threads.

        Raises:
            ApiError: if it cannot be served.
        """
        if body.model != self.name:
            message = f"there is no model {body.model[:200]!r} here; use {self.name!r}"
            raise ApiError(404, message, "model_not_found", "model")
        if self.scheduler.draining:
            raise shutting_down()
        guided = bool(body.ventris.guides) or (
            isinstance(body, ChatRequest) and bool(body.response_format or body.tools)
        )
        return await self.aside(partial(self._prepare, body, holder), slow=guided)

    def _prepare(self, body: AnswerRequest, holder: str) -> list[Request]:
        if isinstance(body, ChatRequest):
            requests = self.translator.chat(body)
        else:
            assert isinstance(body, CompletionRequest)
            requests = self.translator.completion(body)
        for request in requests:
            self.scheduler.check(request)
            # With keys, nobody learns from the time what others asked.
            request.prefix_scope = holder if self.keys else ""
        return requests

    def answer(self, kind: type[AnswerT], requests: Sequence[Request], traced: bool) -> AnswerT:
        """A response to requests that :meth:`prepare` gave, still empty."""
        from ventris.guide.tool_calls import ToolCalls

        tools = next((guide for guide in requests[0].guides if isinstance(guide, ToolCalls)), None)
        return kind(self.name, self.texts, self.fingerprint, traced, tools)

    async def aside(self, work: Callable[[], Result], slow: bool = False) -> Result:
        """Run something that takes long on another thread."""
        pool = self._guided if slow else self._quick
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def submit(self, requests: Sequence[Request], body: AnswerRequest, holder: str) -> Conversation:
        """Queue requests.

        Raises:
            ApiError: if there is no room for them.
        """
        mailbox = Mailbox(self.settings.backlog, self.settings.event_pause)
        deadline = min(body.ventris.deadline or self.settings.deadline, self.settings.deadline)

        def tell(update: Update) -> None:
            mailbox.put(update)
            if mailbox.overfull:
                late = ApiError(408, "the answer was read too slowly and has been given up", "slow_reader")
                self.scheduler.cancel(job, late)

        job = Job(requests, tell, holder, monotonic() + deadline)
        self.scheduler.submit(job)
        return Conversation(self, job, mailbox)


class Conversation:
    """A job whose news are read by one coroutine."""

    def __init__(self, service: Service, job: Job, mailbox: Mailbox) -> None:
        self.service = service
        self.job = job
        self.mailbox = mailbox
        self.completions: dict[int, Completion] = {}

    def cancel(self) -> None:
        """End it; its memory is free before the next step."""
        self.service.scheduler.cancel(self.job)

    async def news(self) -> AsyncIterator[list[Update]]:
        """What has come since the last time, until all answers are finished."""
        left = len(self.job.requests)
        while left:
            updates = await self.mailbox.take()
            for update in updates:
                if update.finished:
                    left -= 1
                    self.completions[update.index] = update.completion
                    if update.error is None:
                        await self._judge(update.completion)
            yield updates

    async def whole(self) -> list[Completion]:
        """All answers, in order, when they are finished.

        Raises:
            Exception: of the first answer that failed; the others are given up.
        """
        failure: Exception | None = None
        async for updates in self.news():
            failures = (update.error for update in updates if update.error is not None)
            if failure is None and (failure := next(failures, None)) is not None:
                self.cancel()
        if failure is not None:
            raise failure
        return self.answered

    @property
    def answered(self) -> list[Completion]:
        """The finished answers, in order."""
        return [self.completions[index] for index in sorted(self.completions)]

    async def _judge(self, completion: Completion) -> None:
        """Have a text checked against rules that no mask keeps; what takes too long stays unjudged."""
        if not completion.verdicts:
            return
        try:
            await self.service.aside(lambda: completion.valid, slow=True)
        except VentrisError as error:
            logger.warning("an answer could not be judged: %s", error)
            completion.verdicts = []
