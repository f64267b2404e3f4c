"""The settings of ``ventris bench structured``, declared once for Python, the command line and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ventris.bench.structured.record import Protocol
from ventris.checked import checked_settings
from ventris.models.embedded import EMBEDDED_NAME


class StructuredSettings(BaseModel):
    """What to measure, and on what."""

    model_config = ConfigDict(extra="forbid")

    protocol: Protocol = Field("mask", description="mask, suite, end-to-end, cost, quality or hostile")
    data: str | None = Field(
        None, description="schemas with instances as JSONL (our own when not given); for suite its folder"
    )
    back_ends: list[str] = Field(
        default_factory=list, description="only these back ends; all that are installed"
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="at most so many schemas, one of each source in turn; 150 for end-to-end, "
        "24 for cost, 10000 for hostile, else all",
    )
    seed: int = Field(0, description="of samples, of hostile input and of the bootstrap")
    model: str = Field(EMBEDDED_NAME, description="the embedded model's name, a .gguf, a folder or a hub id")
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int8-a8", "int4", "int4-a8"] = Field(
        "auto", description="format of the weights; auto takes the checkpoint's own"
    )
    kernels: Literal["auto", "native", "torch"] = Field("auto", description="runtime of the model")
    device: str = Field("auto", description="auto, cpu or cuda")
    threads: int | None = Field(None, ge=1, description="CPU threads; all available ones")
    whitespace: Literal["compact", "spaced", "flexible"] | None = Field(
        None, description="compact, spaced or flexible; spaced for mask and suite, else compact"
    )
    max_new_tokens: int = Field(256, ge=2, description="output tokens of a document at most")
    max_prompt_tokens: int = Field(
        2048, ge=64, description="schemas whose prompt is longer are left out of end-to-end and cost"
    )
    drafts: list[str] = Field(
        default_factory=list,
        description="only these drafters, for cost; ngram and every trained one for the model, alone and "
        "behind ngram",
    )
    repeats: int = Field(3, ge=1, description="how often cost decodes each prompt with each method")
    seconds: float = Field(60.0, gt=0, description="time that one schema may take under one back end")
    memory_gb: float = Field(4.0, gt=0, description="memory that it may take beyond the idle process")
    journal: str | None = Field(None, description="JSONL of finished results; a run goes on with it")
    json_file: str | None = Field(None, description="write the whole report there as JSON")
    html_file: str | None = Field(None, description="write the report there as one HTML page")


def read_structured_settings(given: Mapping[str, Any]) -> StructuredSettings:
    """Check settings.

    Raises:
        BadInput: one line that names the setting and the rule.
    """
    return checked_settings(StructuredSettings, given, "ventris bench structured")
