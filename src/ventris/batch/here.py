"""Answering in this process, by one engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ventris.batch.answer_line import answer_line
from ventris.batch.requests_file import RequestLine
from ventris.batch.run import BatchJob, Keep
from ventris.serve.service import Service


class Here:
    """Answers a job with a service of its own.

    Args:
        service: Not started yet; it is closed when the answers are there.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    @property
    def fingerprint(self) -> str:
        """That of the service."""
        return self.service.fingerprint

    def answer(self, job: BatchJob, missing: Sequence[RequestLine], keep: Keep) -> None:
        """As :class:`ventris.batch.run.Answerer` has it; many requests share each step."""
        self.service.start()
        try:
            asyncio.run(self._answer(job, missing, keep))
        finally:
            self.service.close()

    async def _answer(self, job: BatchJob, missing: Sequence[RequestLine], keep: Keep) -> None:
        # As many as decode side by side, and as many again that are made ready meanwhile.
        room = asyncio.Semaphore(2 * self.service.settings.max_batch)

        async def one(line: RequestLine) -> None:
            try:
                body = job.requests.body(line)
                keep(line, await answer_line(self.service, line, body, job.key(line, body)))
            finally:
                room.release()

        try:
            async with asyncio.TaskGroup() as tasks:
                for line in missing:
                    await room.acquire()
                    tasks.create_task(one(line))
        except ExceptionGroup as failures:
            # Errors of requests are answers; what gets here ends the job, and one reason is enough.
            raise failures.exceptions[0] from None
