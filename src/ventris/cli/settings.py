"""What was asked for: options of the command line over those of a YAML file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ventris.byte_size import read_bytes
from ventris.cli.command_options import with_options
from ventris.cli.form import FormOptions, form_guides
from ventris.cli.option_fields import option_fields
from ventris.engine.errors import BadInput
from ventris.models.embedded import EMBEDDED_NAME
from ventris.options import GenerationOptions, read_generation_options

PARTS = ("draft", "verifier", "guides", "policy")
TOOLS = ("tools", "tool_choice")

OptionsT = TypeVar("OptionsT", bound=BaseModel)


class ModelOptions(BaseModel):
    """Which model runs, and how."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(EMBEDDED_NAME, description="embedded name, hub id, folder or .gguf file")
    dtype: str = Field(
        "auto",
        description="weights: auto, float32, bfloat16, int8, int4, or int8-a8, int4-a8 (8-bit activations)",
    )
    kernels: str = Field("auto", description="runtime: auto, native or torch")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    threads: int | None = Field(None, ge=1, description="CPU threads; all available ones when not given")
    memory_budget: str | None = Field(
        None, description="most that weights, caches and passes may take, such as 330MB; drafts give way"
    )
    stages: int = Field(
        1, ge=1, le=2, description="processes that share the layers; 2 starts another one on this machine"
    )
    rendezvous: str | None = Field(
        None, description="HOST:PORT of this machine, where ventris stage HOST:PORT of another is awaited"
    )
    second_layers: int | None = Field(
        None, ge=1, description="layers of the second process; by default both hold about the same bytes"
    )

    @field_validator("memory_budget")
    @classmethod
    def _check_size(cls, size: str | None) -> str | None:
        if size is not None:
            read_bytes(size)
        return size


class ConversationOptions(BaseModel):
    """What stands before the prompt."""

    model_config = ConfigDict(extra="forbid")

    system: str | None = Field(None, description="system message of the chat template")


MODEL_FIELDS = tuple(option_fields(ModelOptions, lambda key: "Model"))
DECODING_FIELDS = (
    *option_fields(ConversationOptions, lambda key: "Decoding"),
    *(
        field
        for field in option_fields(GenerationOptions, lambda key: "Parts" if key in PARTS else "Decoding")
        # `--trace` takes a file; the command says for itself what becomes of a trace.
        if field.key not in ("trace", *TOOLS)
    ),
)
FORM_FIELDS = (
    *option_fields(FormOptions, lambda key: "Form of the answer"),
    *(f for f in option_fields(GenerationOptions, lambda key: "Form of the answer") if f.key in TOOLS),
)
OPTION_FIELDS = (
    *MODEL_FIELDS,
    *FORM_FIELDS,
    *sorted(DECODING_FIELDS, key=lambda field: field.panel != "Parts"),
)

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.yaml",
        help="settings by the names of these options; options given here go before it",
    ),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything a command needs to load a model and decode.

    Attributes:
        settings: Keyword arguments of ``Model.generate``; only what was given.
        options: The same, checked, with defaults.
    """

    model: ModelOptions
    system: str | None
    settings: dict[str, Any]
    options: GenerationOptions


def takes_model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a model in place of its parameter ``model``."""

    def read(given: dict[str, Any]) -> ModelOptions:
        return checked(ModelOptions, given)

    return with_options(command, "model", MODEL_FIELDS, (), read)


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--config`` and all options of models and decoding in place of ``asked``."""
    config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigFile)

    def read(given: dict[str, Any], config: Path | None) -> Asked:
        return read_settings(config, given)

    return with_options(command, "asked", OPTION_FIELDS, (config,), read)


def read_settings(config: Path | None, given: Mapping[str, Any]) -> Asked:
    """Merge a YAML file and what the command line gave, and check every value.

    Raises:
        BadInput: naming the file or the setting.
    """
    return settings_from({**read_config(config), **given})


def settings_from(merged: dict[str, Any]) -> Asked:
    """Check every value of settings by their names; takes them out of ``merged``.

    Raises:
        BadInput: naming the setting.
    """
    model = {key: merged.pop(key) for key in ModelOptions.model_fields if key in merged}
    said = {key: merged.pop(key) for key in ConversationOptions.model_fields if key in merged}
    system = checked(ConversationOptions, said).system
    form = {key: merged.pop(key) for key in FormOptions.model_fields if key in merged}
    if guides := form_guides(checked(FormOptions, form).model_dump()):
        merged["guides"] = [*guides, *_listed(merged.get("guides"))]
    return Asked(checked(ModelOptions, model), system, merged, read_generation_options(merged))


def _listed(guides: Any) -> list[Any]:
    """Guides as a file or the command line gives them: none, one, or several."""
    if guides is None:
        return []
    return list(guides) if isinstance(guides, list | tuple) else [guides]


def read_config(path: Path | None) -> dict[str, Any]:
    """Settings from a YAML file by the names of their fields; none without a file.

    Raises:
        BadInput: naming the file and what is wrong with it.
    """
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise BadInput(f"{path} is no YAML{place}: {reason}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise BadInput(f"{path} holds no settings; write one 'name: value' a line")
    return {_key(str(name)): value for name, value in content.items()}


def _key(name: str) -> str:
    """The setting that a name in a file means: with dashes or underscores, as option or as field."""
    spelled = name.replace("-", "_")
    return next((f.key for f in OPTION_FIELDS if spelled in (f.name, f.key)), spelled)


def checked(model: type[OptionsT], given: Mapping[str, Any]) -> OptionsT:
    """Settings as their model has them.

    Raises:
        BadInput: naming the setting and the rule it breaks.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise BadInput(f"{name} is {first['input']!r}: {first['msg'].lower()}") from error
