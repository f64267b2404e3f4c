"""Replicas of the server on a Ray cluster, by Ray Serve: one service each, behind Ray's HTTP proxy."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from threading import Event

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError

from ventris.engine.errors import BadInput
from ventris.ray_cluster import ray_cluster
from ventris.serve.run import LAST_SECONDS
from ventris.serve.settings import ServerSettings

APPLICATION = "ventris"

LOOK_SECONDS = 0.2
"""How often a replica that is to end looks whether its last responses have gone out."""


@serve.deployment
@serve.ingress()
class Replica:
    """One engine with the whole application before it, in a process of its own.

    Args:
        make_app: Makes the application in this process.
    """

    def __init__(self, make_app: Callable[[], FastAPI]) -> None:
        self._app = make_app()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._app

    async def drain(self, grace: float) -> None:
        """As :meth:`ventris.serve.service.Service.drain`."""
        await self._app.state.service.drain(grace, asyncio.Event())


def serve_on_ray(
    make_app: Callable[[], FastAPI], name: str, settings: ServerSettings, replicas: int, cpus: int
) -> None:
    """Serve until SIGTERM or Ctrl-C; then running answers get some seconds to finish.

    A second signal ends them at once.

    Args:
        make_app: Makes the application in a replica's process; it must be picklable.
        name: The model's name.
        replicas: Engines.
        cpus: Processors that Ray sets aside for each.

    Raises:
        BadInput: if there is no cluster, or the replicas do not come up.
    """
    if not settings.port:
        raise BadInput("Ray's proxies need a port that is known; give --port")
    with ray_cluster():
        try:
            handle = _deploy(make_app, settings, replicas, cpus)
            place = f"http://{settings.host}:{settings.port}, {replicas} replicas on Ray"
            print(f"ventris: serving {name} on {place} (Ctrl-C stops)", file=sys.stderr)
            _wait_for_signal()
            try:
                handle.broadcast("drain", settings.grace).results(return_exceptions=True)
            except KeyboardInterrupt:
                handle.broadcast("drain", 0.0).results(return_exceptions=True)
        finally:
            _withdraw()


def _deploy(
    make_app: Callable[[], FastAPI], settings: ServerSettings, replicas: int, cpus: int
) -> serve.handle.DeploymentHandle:
    deployment = Replica.options(  # type: ignore[attr-defined]  # the decorator has replaced the class
        num_replicas=replicas,
        # Each replica has a queue of its own, and refuses in its own words what is too much.
        max_ongoing_requests=settings.max_connections,
        max_constructor_retry_count=1,
        graceful_shutdown_wait_loop_s=LOOK_SECONDS,
        graceful_shutdown_timeout_s=settings.grace + LAST_SECONDS,
        ray_actor_options={"num_cpus": cpus},
    )
    try:
        serve.start(http_options={"host": settings.host, "port": settings.port})
        return serve.run(deployment.bind(make_app), name=APPLICATION, route_prefix="/")
    except (RuntimeError, RayError) as error:
        said = str(error).splitlines()[0]
        raise BadInput(f"the replicas do not come up; Ray's logs tell more: {said}") from error


def _withdraw() -> None:
    """Leave the cluster as it was; Ray Serve goes on if others use it."""
    if APPLICATION in serve.status().applications:
        serve.delete(APPLICATION)
    if not serve.status().applications:
        serve.shutdown()


def _wait_for_signal() -> None:
    told = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    told.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
