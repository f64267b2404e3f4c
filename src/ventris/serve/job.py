"""What a client asked for, as the scheduler sees it: answers to decode, and where news of them go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from ventris.engine.request import Completion, Request, TokenLogprob
from ventris.engine.trace import StepTrace


@dataclass(slots=True)
class Update:
    """News of one answer.

    Attributes:
        index: Which answer of the job.
        completion: The answer so far; it goes on changing until ``finished``.
        tokens, sources: New tokens and where each came from.
        logprobs: Log-probabilities of the new tokens, where they were asked for.
        step: The step that brought them, where a trace was asked for.
        error: Why the answer ends here unfinished.
    """

    index: int
    completion: Completion
    text: str = ""
    tokens: Sequence[int] = ()
    sources: Sequence[str] = ()
    logprobs: Sequence[TokenLogprob] = ()
    step: StepTrace | None = None
    finished: bool = False
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class Job:
    """Answers that belong to one client's request.

    Args:
        requests: One for each answer.
        tell: Called with every piece of news, on the scheduler's thread; it must return at once.
        key: Who asks; clients with different keys take turns.
        deadline: On the clock of :func:`time.monotonic`, or ``None``.

    Attributes:
        completions: The answers, as far as they have been begun.
        first_token: When the first token was there, for each answer.
    """

    requests: Sequence[Request]
    tell: Callable[[Update], None]
    key: str = ""
    deadline: float | None = None
    submitted: float = field(default_factory=monotonic)
    completions: dict[int, Completion] = field(default_factory=dict)
    first_token: dict[int, float] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.open = set(range(len(self.requests)))
