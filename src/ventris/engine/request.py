"""A request to the engine and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Literal

from torch import Tensor

from ventris.engine.errors import BadInput, Incompatible
from ventris.engine.parts import Drafter, Guide, Policy
from ventris.engine.sampling import Sampling
from ventris.engine.stream import EMBEDDED
from ventris.engine.trace import Trace
from ventris.engine.verifier import Verifier

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class PromptPart:
    """A stretch of the prompt: tokens, or input rows that stand for something else.

    Attributes:
        tokens: Token ids; empty where ``embeddings`` is given.
        embeddings: Rows ``[n, hidden]`` put in as they are.
        label: What the stretch is (``"image"``, ``"chunk"``, ``"untrusted"``), for parts that care.
    """

    tokens: Sequence[int] = ()
    embeddings: Tensor | None = None
    label: str = ""


def join_parts(
    parts: Sequence[PromptPart],
) -> tuple[list[int], dict[int, Tensor], dict[str, list[tuple[int, int]]]]:
    """Tokens (-1 for embedded rows), embedded rows by position, and labelled spans as (start, stop)."""
    tokens: list[int] = []
    rows: dict[int, Tensor] = {}
    spans: dict[str, list[tuple[int, int]]] = {}
    for part in parts:
        start = len(tokens)
        if part.embeddings is not None:
            rows |= {start + offset: row for offset, row in enumerate(part.embeddings)}
            tokens += [EMBEDDED] * len(part.embeddings)
        else:
            tokens += part.tokens
        if part.label:
            spans.setdefault(part.label, []).append((start, len(tokens)))
    return tokens, rows, spans


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What can be said of the output's distribution.

    Attributes:
        exact: The output follows the guided target's own distribution (token for token at temperature 0).
        statement: One sentence for a person.
    """

    exact: bool
    statement: str


@dataclass(slots=True)
class Request:
    """One sequence to decode.

    Attributes:
        prompt: Token ids, at least one; -1 where ``embeddings`` holds the input row.
        drafter: ``None`` decodes without drafts.
        end_ids: Tokens that end the text.
        stop: Strings that end the text; needs the engine to have a detokenizer.
        logprobs: How many candidates to return at every output token; ``None`` for no log-probabilities.
        trace: Record every step into it.
        share_prefix: Reuse and keep cache rows of equal beginnings …
        prefix_scope: … with requests of the same scope only, so that nobody can tell from the time what
            others asked.
    """

    prompt: Sequence[int]
    verifier: Verifier
    policy: Policy
    max_new_tokens: int = 128
    sampling: Sampling = field(default_factory=Sampling)
    drafter: Drafter | None = None
    guides: Sequence[Guide] = ()
    end_ids: frozenset[int] = frozenset()
    stop: Sequence[str] = ()
    logprobs: int | None = None
    trace: Trace | None = None
    embeddings: dict[int, Tensor] = field(default_factory=dict)
    spans: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    share_prefix: bool = True
    prefix_scope: str = ""

    def check(self) -> None:
        """Refuse settings and pairs of parts that cannot work.

        Raises:
            BadInput: for an empty prompt, a limit that is not positive, or a minimum above it.
            Incompatible: naming the two parts and the reason.
        """
        if not self.prompt:
            raise BadInput("the prompt is empty; give at least one token")
        if self.max_new_tokens < 1:
            raise BadInput(f"max_new_tokens is {self.max_new_tokens}; it must be 1 or more")
        if self.sampling.min_new_tokens > self.max_new_tokens:
            raise BadInput(
                f"min_new_tokens is {self.sampling.min_new_tokens} and max_new_tokens only "
                f"{self.max_new_tokens}; raise the one or lower the other"
            )
        if self.logprobs is not None and self.logprobs < 0:
            raise BadInput(f"logprobs is {self.logprobs}; it must be 0 or more")
        check_parts(self.drafter, self.verifier, self.guides, self.policy, self.sampling)

    def guarantee(self) -> Guarantee:
        """What this combination of parts promises."""
        return guarantee_of(self.drafter, self.verifier, self.guides, self.sampling)


def check_tokens(tokens: Sequence[int], vocab_size: int, what: str, embedded: Collection[int] = ()) -> None:
    """Refuse what is no token of a model.

    Args:
        what: Names the tokens in the error.
        embedded: Places whose input rows are given, where :data:`EMBEDDED` stands for a token.

    Raises:
        BadInput: at the first one.
    """
    for place, token in enumerate(tokens):
        known = isinstance(token, Integral) and 0 <= token < vocab_size
        if not known and not (token == EMBEDDED and place in embedded):
            raise BadInput(
                f"the {what} holds {token!r}, a token outside the vocabulary of {vocab_size}; "
                "is this the model's tokenizer?"
            )


def check_parts(
    drafter: Drafter | None,
    verifier: Verifier,
    guides: Sequence[Guide],
    policy: Policy,
    sampling: Sampling,
) -> None:
    """Raise :class:`Incompatible` if the parts cannot work together.

    A part may bring further rules in a method ``check_with(other_parts, sampling)`` that raises.
    """
    if verifier.greedy_only and not sampling.greedy:
        raise Incompatible(
            f"verifier {verifier.name!r}",
            f"temperature {sampling.temperature:g}",
            "it keeps the most probable token only; set temperature 0 or use 'coupled' or 'rejection'",
        )
    if verifier.chain_only and drafter is not None and drafter.shape != "chain":
        raise Incompatible(
            f"verifier {verifier.name!r}",
            f"drafter {drafter.name!r}",
            "it judges a single path and the drafter proposes trees; ask the drafter for width 1",
        )
    parts = [part for part in (drafter, verifier, policy, *guides) if part is not None]
    for part in parts:
        check = getattr(part, "check_with", None)
        if check is not None:
            check([other for other in parts if other is not part], sampling)


MASKED = "masked and renormalised token by token"
"""What a mask makes of a distribution; a guide that does otherwise says so in an attribute ``law``."""


def guarantee_of(
    drafter: Drafter | None, verifier: Verifier, guides: Sequence[Guide], sampling: Sampling
) -> Guarantee:
    """The guarantee of a combination, in words."""
    guided = "the target's own distribution"
    if guides:
        guided = f"the target's distribution under {', '.join(guide.name for guide in guides)}"
        laws = {getattr(guide, "law", MASKED) for guide in guides if getattr(guide, "masks", False)}
        guided += "".join(f", {law}" for law in sorted(laws))
    if not verifier.exact:
        return Guarantee(False, f"approximate: verifier {verifier.name!r} may depart from {guided}")
    if sampling.greedy:
        return Guarantee(True, f"exact: the same tokens as greedy decoding without drafts, from {guided}")
    if verifier.name == "coupled" or drafter is None:
        return Guarantee(True, f"exact: the same tokens as without drafts for this seed, drawn from {guided}")
    return Guarantee(True, f"exact: tokens are drawn from {guided}")


@dataclass(slots=True)
class Stats:
    """Counts and times of one request.

    Attributes:
        steps: Target passes that produced tokens.
        drafted: Draft nodes scored; ``accepted`` of them were kept.
        dictated: Tokens that a guide left no choice about, taken without being scored.
        proposed_by_depth: How often a draft at depth 1, 2, … was judged (its parent was kept) …
        accepted_by_depth: … and how often it was kept.
        seconds: Time by part over the steps this request took part in: draft, target, guide, verify,
            other. In a batch these are the shared steps' times.
        first_token_seconds: From admission to the first token.
        total_seconds: From admission to the end.
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    new_tokens: int = 0
    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    dictated: int = 0
    proposed_by_depth: list[int] = field(default_factory=list)
    accepted_by_depth: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    first_token_seconds: float = 0.0
    total_seconds: float = 0.0

    @property
    def tokens_per_step(self) -> float:
        """Block efficiency: output tokens a target pass."""
        return self.new_tokens / self.steps if self.steps else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Output tokens after the first a second, so that reading the prompt does not count."""
        seconds = self.total_seconds - self.first_token_seconds
        return (self.new_tokens - 1) / seconds if seconds > 0 and self.new_tokens > 1 else 0.0

    @property
    def acceptance(self) -> list[float]:
        """Share of the judged drafts that were kept, by depth."""
        return [
            accepted / proposed if proposed else 0.0
            for proposed, accepted in zip(self.proposed_by_depth, self.accepted_by_depth, strict=True)
        ]


@dataclass(slots=True)
class TokenLogprob:
    """Log-probability of an output token, with the best alternatives, at temperature 1 before guides."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass(slots=True)
class Completion:
    """What a request came to.

    Attributes:
        verdicts: Say, for each guide that can tell, whether the text satisfies it; read :attr:`valid`.
        error: The one-line reason when ``finish_reason`` is ``"error"``, and ``exception`` behind it.
    """

    prompt: Sequence[int]
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason | None = None
    guarantee: Guarantee | None = None
    stats: Stats = field(default_factory=Stats)
    logprobs: list[TokenLogprob] | None = None
    trace: Trace | None = None
    error: str | None = None
    exception: Exception | None = None
    verdicts: list[Callable[[], bool]] = field(default_factory=list, repr=False)
    _valid: bool | None = field(default=None, repr=False)

    @property
    def valid(self) -> bool | None:
        """Whether the text satisfies all guides; ``None`` where none of them can tell.

        Checked when it is first asked, not while others are waiting for the engine's next step.

        Raises:
            BadInput: if the check passes one of a guide's limits.
        """
        if self.verdicts:
            self._valid = all(verdict() for verdict in self.verdicts)
            self.verdicts = []
        return self._valid
