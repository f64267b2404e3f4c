"""The settings of a study of two models, declared once for Python, the command line and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ventris.checked import checked_settings
from ventris.engine.errors import BadInput
from ventris.models.embedded import EMBEDDED_NAME

Method = Literal["oracle", "contrast", "interpolate", "proxy", "mixture"]

DEFAULT_SMALL = ["aligned", "exit:12", "exit:18", "exit:24", "exit:27"]
"""What there is beside the embedded model: its shipped draft model, and its own first layers."""


DEFAULT_METHODS: list[Method] = ["oracle", "contrast"]


class StudySettings(BaseModel):
    """Which models to study together, and on what."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(EMBEDDED_NAME, description="the large model: its name, a .gguf, a folder or a hub id")
    small: list[str] = Field(
        default_factory=lambda: list(DEFAULT_SMALL),
        min_length=1,
        description="small models: a name or folder, aligned or aligned:FOLDER (a draft model trained for "
        "the large one), or exit:N (its own first N layers); routers are tried with the first",
    )
    tuned: str | None = Field(
        None, description="the first small model after tuning, for the method proxy; written like a small one"
    )
    methods: list[Method] = Field(
        default_factory=lambda: list(DEFAULT_METHODS),
        min_length=1,
        description="how the two choose a token together: oracle (the large model's own), contrast, "
        "interpolate, mixture or proxy",
    )
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int8-a8", "int4", "int4-a8"] = Field(
        "auto", description="format of the weights; auto takes the checkpoint's own"
    )
    kernels: Literal["auto", "native", "torch"] = Field("auto", description="runtime of the models")
    device: str = Field("auto", description="auto, cpu or cuda")
    threads: int | None = Field(None, ge=1, description="CPU threads; all available ones")
    data: str | None = Field(None, description="prompts as JSONL; the small built-in set when not given")
    template: str | None = Field(
        None, description="prompt with the fields of a line in braces, such as 'Solve: {question}'"
    )
    categories: list[str] = Field(default_factory=list, description="only these categories; all if empty")
    per_category: int | None = Field(None, ge=1, description="prompts of each category; all when not given")
    max_new_tokens: int = Field(64, ge=2, description="output tokens of an answer at most")
    rates: list[float] = Field(
        default_factory=lambda: [0.05, 0.1, 0.2, 0.4],
        description="shares of tokens at which routers shall call the large model, each above 0 and below 1; "
        "none to leave decoding with routers out",
    )
    seed: int = Field(0, description="of the bootstrap and of random calls")
    out: str | None = Field(None, description="folder for report.html, report.json and tokens.npz")


def read_settings(given: Mapping[str, Any]) -> StudySettings:
    """Check settings.

    Raises:
        BadInput: one line that names the setting and the rule.
    """
    settings = checked_settings(StudySettings, given, "ventris study")
    for name in ("small", "methods"):
        values: list[str] = getattr(settings, name)
        doubled = [value for value in values if values.count(value) > 1]
        if doubled:
            raise BadInput(f"{name} names {doubled[0]!r} twice; name each once")
    wrong = [rate for rate in settings.rates if not 0 < rate < 1]
    if wrong:
        raise BadInput(f"a rate of calls is {wrong[0]:g}; it must lie above 0 and below 1")
    if "proxy" in settings.methods and settings.tuned is None:
        raise BadInput("the method proxy needs a tuned model; give tuned")
    if "proxy" not in settings.methods and settings.tuned is not None:
        raise BadInput("a tuned model is given, but the method proxy is not asked for; add it to methods")
    if settings.template is not None and settings.data is None:
        raise BadInput("a template needs a file whose fields it names; give data")
    return settings
