"""The settings of a generation, declared once for Python, the command line and the docs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ventris.checked import checked_settings


class GenerationOptions(BaseModel):
    """How to decode one prompt.

    Names and meanings are those of transformers' ``generate`` where it has them.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    max_new_tokens: int = Field(256, ge=1, description="output tokens at most")
    temperature: float = Field(0.0, ge=0, description="0 for greedy decoding")
    top_k: int = Field(0, ge=0, description="keep the k most probable tokens; 0 keeps all")
    top_p: float = Field(1.0, gt=0, le=1, description="keep the most probable tokens up to this mass")
    min_p: float = Field(0.0, ge=0, le=1, description="drop tokens below this fraction of the best")
    typical_p: float = Field(1.0, gt=0, le=1, description="keep tokens of typical surprise up to this mass")
    repetition_penalty: float = Field(1.0, gt=0, description="above 1 makes seen tokens less likely")
    presence_penalty: float = Field(0.0, description="subtracted once from tokens of the output")
    frequency_penalty: float = Field(0.0, description="subtracted for every occurrence in the output")
    logit_bias: dict[int, float] = Field(default_factory=dict, description="added to single tokens' logits")
    banned_words: list[str] = Field(default_factory=list, description="texts that must not appear")
    forced_words: list[str] = Field(default_factory=list, description="texts that must appear")
    min_new_tokens: int = Field(0, ge=0, description="output tokens before the end is allowed")
    stop: list[str] = Field(default_factory=list, description="texts that end the output, not part of it")
    stop_ids: list[int] = Field(default_factory=list, description="further tokens that end the output")
    ignore_eos: bool = Field(False, description="go on after the model's end token, for timing")
    seed: int = Field(0, description="start of the random stream")
    draft: Any = Field(None, description="drafters by priority, such as 'ngram' or 'ngram,model:folder'")
    verifier: Any = Field(None, description="verifier; chosen to be exact when not given")
    guides: Any = Field(None, description="guides in the order of application")
    tools: str | Path | list[dict[str, Any]] | None = Field(
        None,
        description="tools that the answer may call, as OpenAI has them: a JSON file, its text, or a list",
    )
    tool_choice: str = Field("auto", description="auto, required, or the name of the one tool to call")
    policy: Any = Field(None, description="how much to draft; 'goodput' when not given")
    logprobs: int | None = Field(None, ge=0, le=100, description="return so many alternatives a token")
    trace: bool = Field(False, description="record every step")
    raw: bool = Field(False, description="take a text prompt as it is, without the chat template")


def read_generation_options(given: dict[str, Any]) -> GenerationOptions:
    """Check settings.

    Raises:
        BadInput: one line that names the setting and the rule.
    """
    if isinstance(given.get("stop"), str):
        given = {**given, "stop": [given["stop"]]}
    return checked_settings(GenerationOptions, given, "ventris generate")
