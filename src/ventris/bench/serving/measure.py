"""The benchmark: every kind of load in turn, and the ratios between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from time import perf_counter
from typing import Any

import numpy as np
from pydantic import BaseModel

from ventris.bench.prompts import load_questions
from ventris.bench.schedule import rotated
from ventris.bench.serving.client import Client
from ventris.bench.serving.load import LoadRun, run_load
from ventris.bench.serving.process import served
from ventris.bench.serving.settings import ServingSettings
from ventris.bench.statistics import median_ratio

Progress = Callable[[str, int, int], None]

OWN, PEER = "ventris", "peer"

NOT_OURS = "-"
"""Stands for the draft of a server that has no such field."""


class ServingRatio(BaseModel):
    """A ratio of two measurements that were made in turn.

    Attributes:
        low, high: 95 % interval of the median; ``None`` with too few pairs.
        promise: What issue and docs promise, where they do.
    """

    title: str
    value: float
    low: float | None
    high: float | None
    promise: str = ""


class ServingReport(BaseModel):
    """Everything measured."""

    settings: ServingSettings
    loads: list[LoadRun]
    ratios: list[ServingRatio]


def measure_serving(settings: ServingSettings, progress: Progress) -> ServingReport:
    """Start a server in a second process and measure it.

    Raises:
        BadInput: if the server does not start.
        RequestFailed: if it does not answer.
    """
    prompts = chat_prompts(settings.requests)
    arguments = server_arguments(settings)
    with served(arguments) as server:
        client = Client(server.url)
        name = client.ask("GET", "/v1/models")[1]["data"][0]["id"]
        names = {OWN: name, PEER: settings.peer_model}
        clients = {OWN: client, PEER: Client(settings.peer_url)} if settings.peer_url else {OWN: client}
        jobs = _jobs(settings)
        further: dict[str, dict[str, Any]] = {OWN: {}, PEER: _peer_fields(settings)}
        for where, used in clients.items():
            for _, _, draft in (job for job in jobs if job[0] == where):
                used.stream(_body(names[where], "Say hello.", 8, draft) | further[where])
        loads: list[LoadRun] = []
        overheads: list[list[float]] = []
        model = None if settings.without_overhead else _model(settings)
        total = len(jobs) * settings.repeats
        for repeat in range(settings.repeats):
            for place, (where, streams, draft) in enumerate(rotated(jobs, repeat)):
                done = repeat * len(jobs) + place
                progress(f"{where}, {streams} at a time, draft {draft}", done, total)
                asked = [
                    _body(names[where], _fresh(prompt, done, number), settings.max_tokens, draft)
                    | further[where]
                    for number, prompt in enumerate(prompts)
                ]
                loads.append(run_load(where, clients[where], asked, streams, draft, repeat))
            if model is not None:
                progress("ventris, against the model itself", (repeat + 1) * len(jobs), total)
                asked = [
                    _body(name, _fresh(prompt, -1 - repeat, number), settings.max_tokens, "none")
                    for number, prompt in enumerate(prompts)
                ]
                overheads.append(_overheads(model, client, asked))
        progress("done", total, total)
    return ServingReport(settings=settings, loads=loads, ratios=_ratios(settings, loads, overheads))


def chat_prompts(count: int) -> list[str]:
    """First turns of the built-in questions, again from the beginning where there are too few."""
    turns = [question.turns[0] for question in load_questions() if question.turns]
    return list(islice(cycle(turns), count))


def server_arguments(settings: ServingSettings) -> list[str]:
    """What ``ventris serve`` is started with."""
    arguments = [settings.model, "--dtype", settings.dtype, "--kernels", settings.kernels]
    if settings.threads is not None:
        arguments += ["--threads", str(settings.threads)]
    if settings.draft != "none":
        arguments += ["--offered-draft", settings.draft]
    return [*arguments, "--max-batch", str(max(16, *settings.streams))]


def _jobs(settings: ServingSettings) -> list[tuple[str, int, str]]:
    """Server, streams at a time and draft of every load."""
    widths = sorted({1, *settings.streams})
    drafts = ["none"] + ([settings.draft] if settings.draft != "none" else [])
    jobs = [(OWN, streams, draft) for streams in widths for draft in drafts]
    return jobs + ([(PEER, streams, NOT_OURS) for streams in widths] if settings.peer_url else [])


def _fresh(prompt: str, run: int, number: int) -> str:
    """The prompt with a beginning that it never had before, so that no kept prefix helps."""
    return f"({run}.{number}) {prompt}"


def _body(model: str, prompt: str, tokens: int, draft: str) -> dict[str, Any]:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
    }
    return body if draft == NOT_OURS else body | {"ventris": {"ignore_eos": True, "draft": draft}}


def _peer_fields(settings: ServingSettings) -> dict[str, Any]:
    bias = {str(token): value for token, value in settings.peer_logit_bias.items()}
    return {"logit_bias": bias} if bias else {}


def _model(settings: ServingSettings) -> Any:
    from ventris.model import load

    model: Any = load(settings.model, settings.dtype, settings.kernels, threads=settings.threads)  # type: ignore[arg-type]
    return model


def _overheads(model: Any, client: Client, bodies: Sequence[dict[str, Any]]) -> list[float]:
    """Time of each answer over HTTP divided by its time in this process, the two in turn."""
    ratios = []
    for number, body in enumerate(bodies):
        both: dict[str, float] = {}
        for place in rotated(["http", "process"], number):
            started = perf_counter()
            if place == "http":
                client.stream(body)
            else:
                settings = {"max_new_tokens": body["max_tokens"], "ignore_eos": True}
                for _ in model.stream(body["messages"], **settings):
                    pass
            both[place] = perf_counter() - started
        ratios.append(both["http"] / both["process"])
    return ratios


def _ratios(
    settings: ServingSettings, loads: Sequence[LoadRun], overheads: Sequence[Sequence[float]]
) -> list[ServingRatio]:
    def rates(server: str, streams: int, draft: str) -> list[float]:
        found = [run for run in loads if (run.server, run.streams, run.draft) == (server, streams, draft)]
        return [run.rate for run in sorted(found, key=lambda run: run.repeat)]

    def late(server: str, streams: int) -> list[float]:
        found = [run for run in loads if (run.server, run.streams) == (server, streams)]
        found = [run for run in found if run.draft in ("none", NOT_OURS)]
        return [
            float(np.quantile(run.first_seconds, 0.95)) for run in sorted(found, key=lambda run: run.repeat)
        ]

    def add(title: str, above: Sequence[float], below: Sequence[float], promise: str = "") -> None:
        groups = [[a / b] for a, b in zip(above, below, strict=True)]
        add_groups(title, groups, promise)

    def add_groups(title: str, groups: Sequence[Sequence[float]], promise: str = "") -> None:
        if (ratio := median_ratio(groups, settings.seed)) is not None:
            ratios.append(
                ServingRatio(title=title, value=ratio.median, low=ratio.low, high=ratio.high, promise=promise)
            )

    ratios: list[ServingRatio] = []
    for streams in settings.streams:
        title = f"tokens/s, {streams} streams at a time against one after another"
        add(title, rates(OWN, streams, "none"), rates(OWN, 1, "none"), "≥ 3")
    if settings.draft != "none":
        for streams in sorted({1, *settings.streams}):
            title = f"tokens/s, {streams} at a time, draft {settings.draft} against none"
            add(title, rates(OWN, streams, settings.draft), rates(OWN, streams, "none"), "≥ 0.97")
    add_groups(
        "time of an answer over HTTP against model.stream", [[r] for run in overheads for r in run], "≤ 1.05"
    )
    if settings.peer_url:
        for streams in settings.streams:
            title = f"tokens/s, {streams} at a time, against the peer"
            add(title, rates(OWN, streams, "none"), rates(PEER, streams, NOT_OURS), "> 1")
            title = f"p95 time to first token, {streams} at a time, against the peer"
            add(title, late(OWN, streams), late(PEER, streams), "< 1")
    return ratios
