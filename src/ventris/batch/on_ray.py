"""Answering on a Ray cluster, by Ray Data: one engine an actor; answers come back block by block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import ray

from ventris.batch.answer_line import answer_line
from ventris.batch.requests_file import RequestLine
from ventris.batch.run import BatchJob, Keep
from ventris.ray_cluster import ray_cluster
from ventris.serve.service import Service

Columns = dict[str, Any]

BLOCKS_EACH = 8
"""Blocks of requests for each engine, so that none of them waits long for the last one."""


class OnRay:
    """Answers a job with several engines.

    The cluster is that of ``RAY_ADDRESS``, or one on this machine that ends with the job.

    Args:
        make_service: Makes a service in an actor's process; it must be picklable.
        fingerprint: Names what decodes.
        replicas: Engines.
        width: Requests that decode side by side in an engine.
        cpus: Processors that Ray sets aside for an engine.
    """

    def __init__(
        self,
        make_service: Callable[[], Service],
        fingerprint: str,
        replicas: int,
        width: int,
        cpus: int = 1,
    ) -> None:
        self.fingerprint = f"ray-{fingerprint}"
        self._make_service = make_service
        self._replicas = replicas
        self._width = width
        self._cpus = cpus

    def answer(self, job: BatchJob, missing: Sequence[RequestLine], keep: Keep) -> None:
        """As :class:`ventris.batch.run.Answerer` has it.

        Raises:
            BadInput: if no cluster can be reached or begun.
        """
        with ray_cluster():
            ray.data.DataContext.get_current().enable_progress_bars = False
            lines = {line.number: line for line in missing}
            requests = ray.data.from_items(
                [self._row(job, line) for line in missing],
                override_num_blocks=min(len(missing), BLOCKS_EACH * self._replicas),
            )
            answers = requests.map_batches(
                _Engine,
                fn_constructor_args=(self._make_service,),
                batch_size=2 * self._width,
                concurrency=self._replicas,
                num_cpus=self._cpus,
            )
            for row in answers.iter_rows():
                keep(lines[int(row["number"])], orjson.loads(row["answer"]))

    @staticmethod
    def _row(job: BatchJob, line: RequestLine) -> dict[str, Any]:
        body = job.requests.body(line)
        return {
            "number": line.number,
            "custom_id": line.custom_id,
            "url": line.url,
            "body": orjson.dumps(body).decode(),
            "key": job.key(line, body),
        }


class _Engine:
    """An actor: a service that lives as long as Ray Data wants."""

    def __init__(self, make_service: Callable[[], Service]) -> None:
        self.service = make_service()
        self.service.start()

    def __call__(self, block: Columns) -> Columns:
        """Answers to a block of requests, as JSON text by the number of their line."""
        return {"number": block["number"], "answer": asyncio.run(self._answer(block))}

    async def _answer(self, block: Columns) -> list[str]:
        names = ("number", "custom_id", "url", "body", "key")
        tasks = []
        for number, custom_id, url, body, key in zip(*(block[name] for name in names), strict=True):
            line = RequestLine(int(number), 0, 0, str(custom_id), str(url))
            tasks.append(answer_line(self.service, line, orjson.loads(body), str(key)))
        return [orjson.dumps(answer).decode() for answer in await asyncio.gather(*tasks)]
