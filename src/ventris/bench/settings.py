"""The settings of a benchmark, declared once for Python, the command line and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ventris.checked import checked_settings
from ventris.models.embedded import EMBEDDED_NAME

DEFAULT_METHODS = ["autoregressive", "ngram"]


class BenchSettings(BaseModel):
    """What to measure, on what, and how often."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(EMBEDDED_NAME, description="the embedded model's name, a .gguf, a folder or a hub id")
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int8-a8", "int4", "int4-a8"] = Field(
        "auto", description="format of the weights; auto takes the checkpoint's own"
    )
    kernels: Literal["auto", "native", "torch"] = Field("auto", description="runtime of our own methods")
    device: str = Field("auto", description="auto, cpu or cuda")
    threads: int | None = Field(None, ge=1, description="CPU threads of every runtime; all available ones")
    data: str | None = Field(None, description="prompts as JSONL; the small built-in set when not given")
    categories: list[str] = Field(default_factory=list, description="only these categories; all if empty")
    per_category: int | None = Field(None, ge=1, description="prompts of each category; all when not given")
    methods: list[Any] = Field(
        default_factory=lambda: list(DEFAULT_METHODS),
        description="'name = draft @ policy | verifier', only the draft is needed; or a YAML/JSON file",
    )
    policy: Any = Field(None, description="policy of the methods that name none; 'goodput' when not given")
    max_new_tokens: int = Field(128, ge=2, description="output tokens of a turn at most")
    ignore_eos: bool = Field(False, description="go on after the end token, so that all outputs are as long")
    temperature: float = Field(0.0, ge=0, description="0 for greedy decoding; peers are greedy only")
    seed: int = Field(0, description="start of every random stream, the bootstrap's too")
    repeats: int = Field(3, ge=1, description="how often each prompt is decoded by each method")
    batch: int | None = Field(None, ge=2, le=256, description="also compare a batch of so many with batch 1")
    peers: list[str] = Field(
        default_factory=list,
        description="other toolkits as rows: transformers, transformers-prompt-lookup, "
        "transformers-assisted, llama.cpp, llama.cpp-prompt-lookup",
    )
    draft_model: str | None = Field(None, description="draft model of transformers-assisted")
    out: str | None = Field(None, description="folder for report.json and report.html")


def read_settings(given: Mapping[str, Any]) -> BenchSettings:
    """Check settings.

    Raises:
        BadInput: one line that names the setting and the rule.
    """
    return checked_settings(BenchSettings, given, "ventris bench")
