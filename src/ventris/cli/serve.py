"""``ventris serve``: OpenAI's HTTP API over one model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ventris.cli.command_options import with_options
from ventris.cli.loading import load_for, load_model
from ventris.cli.option_fields import OptionField, option_fields
from ventris.cli.progress import phases
from ventris.cli.settings import (
    DECODING_FIELDS,
    MODEL_FIELDS,
    TOOLS,
    Asked,
    ConfigFile,
    ModelOptions,
    checked,
    read_config,
    settings_from,
)
from ventris.engine.errors import BadInput
from ventris.serve.settings import ServerSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ventris.serve.keys import ApiKeys
    from ventris.serve.service import Service

NOT_FOR_A_SERVER = ("system", "logprobs", "raw", "stop", *TOOLS)
"""Settings that belong to a request."""

PACKAGES = ("fastapi", "uvicorn", "orjson", "prometheus_client")

SERVER_FIELDS = tuple(option_fields(ServerSettings, lambda key: "Server"))
DEFAULT_FIELDS = tuple(
    field
    for field in sorted(DECODING_FIELDS, key=lambda field: field.panel != "Parts")
    if field.key not in NOT_FOR_A_SERVER
)


@dataclass(frozen=True, slots=True)
class AskedServer:
    """Everything the command was told."""

    server: ServerSettings
    defaults: Asked


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(takes_server_settings(serve))


def takes_server_settings(
    command: Callable[..., None],
    fields: Sequence[OptionField] = SERVER_FIELDS,
    usual: Mapping[str, Any] | None = None,
) -> Callable[..., None]:
    """Give a command the options of server, model and decoding in place of ``asked``.

    Args:
        fields: The server's options that it takes.
        usual: Server settings that differ from a server's own where nothing else is said.
    """
    config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigFile)

    def read(given: dict[str, Any], config: Path | None) -> AskedServer:
        return read_server_settings({**(usual or {}), **_by_key(read_config(config)), **given})

    return with_options(command, "asked", (*fields, *MODEL_FIELDS, *DEFAULT_FIELDS), (config,), read)


def read_server_settings(merged: dict[str, Any]) -> AskedServer:
    """Check every setting.

    Raises:
        BadInput: naming the setting.
    """
    server = {key: merged.pop(key) for key in ServerSettings.model_fields if key in merged}
    refused = next((key for key in NOT_FOR_A_SERVER if key in merged), None)
    if refused:
        raise BadInput(f"{refused} belongs to a request; a server has no such setting")
    return AskedServer(checked(ServerSettings, server), settings_from(merged))


OnRay = Annotated[bool, typer.Option("--ray", help="work on a Ray cluster: RAY_ADDRESS, or this machine")]
Replicas = Annotated[int, typer.Option(min=1, help="engines on the Ray cluster")]


def serve(
    asked: AskedServer,
    name: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="the same as --model", show_default=False)
    ] = None,
    on_ray: OnRay = False,
    replicas: Replicas = 1,
) -> None:
    """Serve a model to clients of OpenAI's API.

    Parts and decoding settings given here are defaults for requests that do not say. Log lines are JSON, on
    stderr, without prompts.
    """
    needs_packages()
    check_ray(on_ray, replicas)
    from ventris.serve.keys import read_keys

    keys = read_keys(asked.server.api_keys)
    asked.server.check_exposure(len(keys))
    if name is not None:
        asked.defaults.model.model = name
    served = asked.server.served_name or Path(asked.defaults.model.model).name
    if on_ray:
        _serve_on_ray(asked, served, keys, replicas)
        return
    # The web framework takes most of a second to import; that passes while the model loads.
    importing = Thread(target=_import_app, daemon=True)
    importing.start()
    loaded = load_for(asked.defaults)
    importing.join()
    from ventris.serve.log import log_to
    from ventris.serve.run import serve as run
    from ventris.serve.service import Service

    service = Service(loaded, served, asked.server, asked.defaults.settings, keys)
    with phases("preparing the parts"):
        service.prepare_parts()
    log_to()
    run(_application(service), service)


def _serve_on_ray(asked: AskedServer, served: str, keys: ApiKeys, replicas: int) -> None:
    with phases("starting"):
        from ventris.model import check_settings
        from ventris.models.source import resolve
        from ventris.serve.on_ray import serve_on_ray

        check_settings(asked.defaults.options)
        resolve(asked.defaults.model.model)
    options, settings = asked.defaults.model, asked.defaults.settings
    make = partial(_make_application, options, served, asked.server, settings, keys)
    serve_on_ray(make, served, asked.server, replicas, options.threads or 1)


def _make_application(
    model: ModelOptions, served: str, server: ServerSettings, settings: dict[str, Any], keys: ApiKeys
) -> FastAPI:
    """The application in another process."""
    from ventris.serve.log import log_to

    service = make_service(model, served, server, settings, keys)
    log_to()
    return _application(service)


def make_service(
    model: ModelOptions,
    served: str,
    server: ServerSettings,
    settings: dict[str, Any],
    keys: ApiKeys | None = None,
) -> Service:
    """A service in another process."""
    from ventris.serve.service import Service

    service = Service(load_model(model), served, server, settings, keys)
    service.prepare_parts()
    return service


def _application(service: Service) -> FastAPI:
    from ventris.playground import PAGE_PATHS, playground
    from ventris.serve.app import OPEN_PATHS, create_app

    pages = [] if service.settings.without_playground else [playground()]
    return create_app(service, pages, OPEN_PATHS | PAGE_PATHS)


def needs_packages(what: str = "the server") -> None:
    """Refuse to go on without the packages of the extra.

    Args:
        what: Who needs them.

    Raises:
        BadInput: naming what is missing and how to get it.
    """
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise BadInput(f"{what} needs {', '.join(missing)}; pip install 'ventris[serve]'")


def check_ray(wanted: bool, replicas: int) -> None:
    """Refuse what cannot be done without Ray.

    Raises:
        BadInput: naming the option or the package that is missing.
    """
    if replicas > 1 and not wanted:
        raise BadInput("several replicas need a Ray cluster; add --ray")
    if wanted and find_spec("ray") is None:
        raise BadInput("--ray needs the package ray; pip install 'ventris[ray]'")


def _import_app() -> None:
    import ventris.playground
    import ventris.serve.app  # noqa: F401  # both for their side effect on sys.modules


def _by_key(config: Mapping[str, Any]) -> dict[str, Any]:
    """Server settings in a file under the names of their fields."""
    spelled = {field.name: field.key for field in SERVER_FIELDS}
    return {spelled.get(name, name): value for name, value in config.items()}
