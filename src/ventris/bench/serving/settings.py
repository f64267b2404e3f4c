"""The settings of ``ventris bench serve``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ventris.models.embedded import EMBEDDED_NAME


class ServingSettings(BaseModel):
    """What is served, and the load on it."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(EMBEDDED_NAME, description="embedded name, hub id, folder or .gguf file")
    dtype: str = Field("auto", description="format of the weights")
    kernels: str = Field("auto", description="runtime: auto, native or torch")
    threads: int | None = Field(None, ge=1, description="CPU threads of the server")
    draft: str = Field("ngram", description="drafter that is compared with none")
    streams: list[int] = Field(
        default_factory=lambda: [8, 16], description="streams at a time, each against one"
    )
    requests: int = Field(16, ge=1, description="requests of one measurement")
    max_tokens: int = Field(128, ge=2, description="tokens of each answer")
    repeats: int = Field(3, ge=1, description="how often everything is measured, in turn")
    without_overhead: bool = Field(
        False, description="do not compare one stream with the model in this process"
    )
    peer_url: str | None = Field(None, description="another server of OpenAI's API, for the same load")
    peer_model: str = Field("default", description="the model's name there")
    peer_logit_bias: dict[int, float] = Field(
        default_factory=dict,
        description="added there to logits; -100 for the end token lets answers be as long as here",
    )
    soak: float | None = Field(None, gt=0, description="instead: minutes of random and hostile requests")
    clients: int = Field(8, ge=1, description="clients at a time in a soak")
    seed: int = Field(0, description="start of what is random in a soak and a bootstrap")
