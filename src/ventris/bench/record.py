"""What a benchmark writes down: every run as it was, so that any table can be drawn again from it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ventris.bench.contestant import Kind


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Difference(_Record):
    """Where an output left its twin's.

    Attributes:
        position: Index of the first token that differs.
        gap: Distance of the two tokens' logits there, as the target computes them; ``None`` if unknown.
        near_tie: The gap is within the rounding of the number format.
    """

    position: int
    gap: float | None = None
    near_tie: bool = False


class Run(_Record):
    """One turn of one question, decoded once by one contestant.

    Attributes:
        place: Place in the order of its round, counted from 0.
        prompt_digest, output_digest: Hashes of the token ids.
        passes, decode_passes: Target passes that produced tokens; without the first one.
        parts: Decode seconds by part of a step.
        peak_growth: Bytes by which memory rose above what was resident before the run.
        same: The output equals its twin's; ``None`` if it has none or their prompts differed.
    """

    question: str
    category: str
    turn: int
    repeat: int
    place: int
    contestant: str
    prompt_tokens: int
    prompt_digest: str
    output_digest: str
    new_tokens: int
    finish: str
    first_token_seconds: float
    decode_tokens: int
    decode_seconds: float
    passes: int | None = None
    decode_passes: int | None = None
    drafted: int = 0
    accepted: int = 0
    proposed_by_depth: list[int] = Field(default_factory=list)
    accepted_by_depth: list[int] = Field(default_factory=list)
    parts: dict[str, float] = Field(default_factory=dict)
    peak_growth: int | None = None
    same: bool | None = None
    difference: Difference | None = None


class Entrant(_Record):
    """A row of the tables.

    Attributes:
        plain: Name of plain decoding on the same runtime, which its speed-up is measured against.
        promised: Its output must equal its twin's, token for token.
        statement: A method's guarantee in words; for a peer, how it was configured.
        missing: Why it could not run; ``None`` if it did.
    """

    name: str
    kind: Kind
    plain: str
    spec: dict[str, Any] = Field(default_factory=dict)
    promised: bool = False
    statement: str = ""
    missing: str | None = None


class ForwardCost(_Record):
    """T(n): median seconds of one forward over n nodes."""

    sizes: list[int]
    seconds: list[float]

    def at(self, nodes: int) -> float | None:
        """Seconds at a measured size, ``None`` at others."""
        return dict(zip(self.sizes, self.seconds, strict=True)).get(nodes)

    @property
    def eight_to_one(self) -> float | None:
        """T(8)/T(1): what checking seven drafted tokens costs."""
        one, eight = self.at(1), self.at(8)
        return eight / one if one and eight else None


class BatchRun(_Record):
    """Total decode speed of one group of prompts, side by side or one after the other.

    Attributes:
        size: Prompts decoded side by side.
        tokens, seconds: While all of them were decoding.
    """

    contestant: str
    group: int
    repeat: int
    size: int
    tokens: int
    seconds: float


class Load(_Record):
    """How busy the machine was apart from us.

    Attributes:
        before, after: Load average of the last minute; our own threads count in it.
        other_cores: Cores that other processes used on average while we measured.
        stolen_cores: Cores that the hypervisor gave to other machines meanwhile.
    """

    before: float | None = None
    after: float | None = None
    other_cores: float | None = None
    stolen_cores: float | None = None


class Environment(_Record):
    """Where the figures come from."""

    cpu: str
    cores: int
    threads: int
    memory_bytes: int | None = None
    gpu: str | None = None
    system: str
    versions: dict[str, str]
    commit: str | None = None
    model: str
    model_file: str | None = None
    fingerprint: str | None = None
    runtime: str
    kernel: str
    dtype: str
    weight_bytes: int | None = None
    load: Load = Field(default_factory=Load)


class Report(_Record):
    """Everything that a benchmark found.

    Attributes:
        created: UTC, ISO 8601.
        seconds: How long the measuring took.
        settings: The settings as given.
        warnings: What a reader must know before he believes a figure.
    """

    format: Literal[1] = 1
    created: str
    seconds: float
    settings: dict[str, Any]
    environment: Environment
    entrants: list[Entrant]
    runs: list[Run]
    forward_cost: ForwardCost | None = None
    batch_runs: list[BatchRun] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
