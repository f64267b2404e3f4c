"""A promise with what was measured."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ventris.bench.record import BatchRun, Environment, ForwardCost, Run

Verdict = Literal["pass", "miss", "not measured"]
Unit = Literal["x", "%", "s"]


class Claim(BaseModel):
    """One promise of the engine.

    Attributes:
        name: Short, for programs.
        title: For a person.
        value: What was measured; ``None`` if it could not be.
        low, high: The 95 % interval, where there is one.
        better: Whether the value is to reach the target or to stay below it.
        target: What is promised.
        aim: What is hoped for beyond it.
        note: What a reader should know, such as the reason why there is no value.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    title: str
    value: float | None
    low: float | None = None
    high: float | None = None
    better: Literal["higher", "lower"] = "higher"
    target: float
    aim: float | None = None
    unit: Unit = "x"
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether the measured value meets the target."""
        if self.value is None:
            return "not measured"
        met = self.value >= self.target if self.better == "higher" else self.value <= self.target
        return "pass" if met else "miss"

    @property
    def uncertain(self) -> bool:
        """The interval holds the target, so another run may end otherwise."""
        return self.low is not None and self.high is not None and self.low <= self.target <= self.high

    @property
    def shown_value(self) -> str:
        return "-" if self.value is None else self._shown(self.value)

    @property
    def shown_interval(self) -> str:
        if self.low is None or self.high is None:
            return "-"
        return f"{self._shown(self.low)} to {self._shown(self.high)}"

    @property
    def shown_target(self) -> str:
        return f"{'≥' if self.better == 'higher' else '≤'} {self._shown(self.target)}"

    @property
    def shown_aim(self) -> str:
        return "" if self.aim is None else self._shown(self.aim)

    def _shown(self, value: float) -> str:
        if self.unit == "%":
            return f"{100 * value:.1f} %"
        return f"{value:.2f}{self.unit}" if self.unit == "x" else f"{value:.2f} {self.unit}"


class ClaimsReport(BaseModel):
    """All promises, and the runs behind them.

    Attributes:
        environments: By number format of the model.
        missing: Contestants that could not run, with the reason.
        first_token_seconds: Of every fresh process.
    """

    model_config = ConfigDict(extra="forbid")

    created: str
    seconds: float
    claims: list[Claim]
    environments: dict[str, Environment]
    missing: dict[str, str] = Field(default_factory=dict)
    runs: list[Run] = Field(default_factory=list)
    copying_runs: list[Run] = Field(default_factory=list)
    batch_runs: list[BatchRun] = Field(default_factory=list)
    forward_costs: dict[str, ForwardCost] = Field(default_factory=dict)
    first_token_seconds: list[float] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
