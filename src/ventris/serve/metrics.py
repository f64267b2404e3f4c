"""Figures for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from ventris.engine.request import Completion
from ventris.serve.job import Job
from ventris.serve.scheduler import Snapshot

# Times of creation double the page and tell nothing that a scraper does not know.
disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128)


class Metrics:
    """Counts what the scheduler and the HTTP side tell.

    Args:
        snapshot: How busy the scheduler is now.
    """

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self.registry = CollectorRegistry()
        self._snapshot = snapshot
        self._responses = Counter(
            "ventris_http_responses",
            "HTTP responses by path and status",
            ["path", "status"],
            registry=self.registry,
        )
        self._finished = Counter(
            "ventris_answers", "answers that have ended, by reason", ["finish_reason"], registry=self.registry
        )
        self._tokens = Counter(
            "ventris_tokens",
            "tokens read, taken from kept caches, and written",
            ["kind"],
            registry=self.registry,
        )
        self._steps = Counter("ventris_steps", "engine steps that brought tokens", registry=self.registry)
        self._batch = Histogram(
            "ventris_batch_size", "answers that shared a step", buckets=BATCHES, registry=self.registry
        )
        self._step_seconds = Histogram(
            "ventris_step_seconds", "time of a step", buckets=TOKEN_SECONDS, registry=self.registry
        )
        self._first_token = Histogram(
            "ventris_time_to_first_token_seconds",
            "from the request's arrival to its first token",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._token_seconds = Histogram(
            "ventris_time_per_token_seconds",
            "mean time of an answer's tokens after the first",
            buckets=TOKEN_SECONDS,
            registry=self.registry,
        )
        self._judged = Counter(
            "ventris_draft_tokens_judged",
            "drafted tokens by depth whose parent was kept",
            ["depth"],
            registry=self.registry,
        )
        self._kept = Counter(
            "ventris_draft_tokens_accepted",
            "drafted tokens by depth that were kept",
            ["depth"],
            registry=self.registry,
        )
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The figures of this moment, for the registry."""
        now = self._snapshot()
        yield _gauge("ventris_running", "answers that are being decoded", now.running)
        yield _gauge("ventris_queue", "answers that wait for their turn", now.queued)
        yield _gauge("ventris_tokens_per_second", "over the last ten seconds", now.tokens_per_second)
        held = GaugeMetricFamily("ventris_cache_bytes", "memory of caches by owner", labels=["owner"])
        for owner, size in now.cache_bytes.items():
            held.add_metric([owner], size)
        yield held
        yield _gauge("ventris_cache_limit_bytes", "memory that caches may take", now.cache_limit or 0)
        yield _gauge("ventris_prefix_bytes", "of it kept for later prompts", now.prefix_bytes)

    def stepped(self, deciding: int, tokens: int, seconds: float) -> None:
        """A step brought tokens for so many requests."""
        self._steps.inc()
        self._batch.observe(deciding)
        self._step_seconds.observe(seconds)
        self._tokens.labels("output").inc(tokens)

    def finished(self, job: Job, index: int, completion: Completion, now: float) -> None:
        """An answer has ended, whichever way."""
        stats = completion.stats
        self._finished.labels(completion.finish_reason or "cancelled").inc()
        self._tokens.labels("prompt").inc(stats.prompt_tokens)
        self._tokens.labels("reused").inc(stats.reused_tokens)
        first = job.first_token.get(index)
        if first is not None:
            self._first_token.observe(first - job.submitted)
            if stats.new_tokens > 1:
                self._token_seconds.observe((now - first) / (stats.new_tokens - 1))
        for depth, (judged, kept) in enumerate(
            zip(stats.proposed_by_depth, stats.accepted_by_depth, strict=True), 1
        ):
            self._judged.labels(str(depth)).inc(judged)
            self._kept.labels(str(depth)).inc(kept)

    def answered(self, path: str, status: int) -> None:
        """An HTTP response began."""
        self._responses.labels(path, str(status)).inc()

    def page(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value=value)
