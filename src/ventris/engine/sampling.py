"""From logits to the distribution a token is drawn from: biases, penalties, bans, then the warps.

Order (as transformers applies them): logit bias, repetition / presence / frequency penalties, banned
words, minimum length, forced words; then guides; then temperature, top-k, top-p, min-p, typical-p.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ventris.engine.errors import BadInput, BrokenModel

Row = npt.NDArray[np.floating]

COLDEST = 1e-6
"""Temperatures below this one draw the same token, and their quotients may not be finite."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen from the target's logits.

    Attributes:
        temperature: 0 for greedy decoding, otherwise the divisor of the logits.
        top_k: Keep the k most probable tokens; 0 keeps all.
        top_p: Keep the smallest set of most probable tokens whose mass reaches this.
        min_p: Drop tokens below this fraction of the largest probability.
        typical_p: Keep the tokens of most typical surprise up to this mass (Meister et al. 2023).
        repetition_penalty: Divide positive and multiply negative logits of tokens seen in prompt or
            output (Keskar et al. 2019).
        presence_penalty: Subtracted once from tokens seen in the output.
        frequency_penalty: Subtracted for every occurrence in the output.
        logit_bias: Added to the logits of single tokens.
        banned: Token sequences that must not appear in the output.
        forced: Token sequences that must all appear; the end is withheld until they have, and they are
            written out when the remaining length just suffices.
        min_new_tokens: The end is withheld until so many tokens are there.
        seed: Start of this request's random stream.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    banned: Sequence[Sequence[int]] = ()
    forced: Sequence[Sequence[int]] = ()
    min_new_tokens: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        checks = (
            ("temperature", self.temperature, self.temperature >= 0, "0 or more"),
            ("top_k", self.top_k, self.top_k >= 0, "0 (all tokens) or more"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", self.min_p, 0 <= self.min_p <= 1, "between 0 and 1"),
            ("typical_p", self.typical_p, 0 < self.typical_p <= 1, "above 0 and at most 1"),
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "above 0"),
            ("min_new_tokens", self.min_new_tokens, self.min_new_tokens >= 0, "0 or more"),
        )
        for name, value, good, rule in checks:
            if not good or not math.isfinite(value):
                finite = "" if math.isfinite(value) else ", and finite"
                raise BadInput(f"{name} is {value}; it must be {rule}{finite}")
        for name in ("presence_penalty", "frequency_penalty"):
            if not math.isfinite(getattr(self, name)):
                raise BadInput(f"{name} must be a finite number")
        if any(len(word) == 0 for word in (*self.banned, *self.forced)):
            raise BadInput("banned and forced words must not be empty")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


class SamplingState:
    """What the prefix-dependent adjustments of one request remember; it only ever moves forward.

    Args:
        sampling: The request's settings.
        prompt: Prompt tokens, for the repetition penalty.
        end_ids: Tokens that end the text, withheld where the settings ask for it.
        max_new_tokens: Length limit, for forced words.
        vocab_size: Length of a row of logits.

    Raises:
        BadInput: if a bias or word names a token outside the vocabulary, or the forced words cannot fit.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        end_ids: Sequence[int],
        max_new_tokens: int,
        vocab_size: int,
    ) -> None:
        self.sampling = sampling
        self.end_ids = [token for token in end_ids if token < vocab_size]
        self.output: list[int] = []
        self._limit = max_new_tokens
        self._missing = [list(word) for word in sampling.forced]
        self._writing: list[int] = []
        named = [
            *sampling.logit_bias,
            *(token for word in (*sampling.banned, *sampling.forced) for token in word),
        ]
        for token in named:
            if not 0 <= token < vocab_size:
                raise BadInput(f"token {token} is outside the vocabulary of {vocab_size} tokens")
        if sum(map(len, self._missing)) > max_new_tokens:
            raise BadInput("the forced words need more tokens than max_new_tokens allows")
        self._bias_ids = np.fromiter(sampling.logit_bias, np.int64, len(sampling.logit_bias))
        self._bias = np.fromiter(sampling.logit_bias.values(), np.float64, len(sampling.logit_bias))
        self._counts: npt.NDArray[np.int32] | None = None
        self._seen: npt.NDArray[np.bool_] | None = None
        if sampling.presence_penalty or sampling.frequency_penalty:
            self._counts = np.zeros(vocab_size, np.int32)
        if sampling.repetition_penalty != 1.0:
            self._seen = np.zeros(vocab_size, np.bool_)
            self._seen[[token for token in prompt if token >= 0]] = True

    @property
    def idle(self) -> bool:
        """True when :meth:`adjust` would change nothing at the present prefix."""
        sampling = self.sampling
        return (
            self._counts is None
            and self._seen is None
            and not self._bias_ids.size
            and not sampling.banned
            and not self._missing
            and not self._writing
            and len(self.output) >= sampling.min_new_tokens
        )

    def adjust(self, row: Row) -> Row:
        """The logits ``[vocab]`` at the present prefix after biases, penalties, bans and forced words."""
        sampling = self.sampling
        row = row.copy()
        if self._bias_ids.size:
            row[self._bias_ids] += self._bias.astype(row.dtype)
        if self._seen is not None:
            seen = row[self._seen]
            factor = sampling.repetition_penalty
            row[self._seen] = np.where(seen > 0, seen / factor, seen * factor)
        if self._counts is not None:
            penalty = sampling.frequency_penalty * self._counts + sampling.presence_penalty * (
                self._counts > 0
            )
            row -= penalty.astype(row.dtype)
        for word in sampling.banned:
            if self._ends_with(word[:-1]):
                row[word[-1]] = -np.inf
        if len(self.output) < sampling.min_new_tokens or self._missing or self._writing:
            row[self.end_ids] = -np.inf
        if self._writing:
            return _only(row, self._writing[0])
        if self._missing and self._limit - len(self.output) <= sum(map(len, self._missing)):
            return _only(row, self._missing[0][0])
        return row

    def advance(self, token: int) -> None:
        """Append an output token."""
        self.output.append(token)
        if self._counts is not None:
            self._counts[token] += 1
        if self._seen is not None:
            self._seen[token] = True
        if self._writing:
            self._writing.pop(0)
        elif self._missing and self._limit - len(self.output) < sum(map(len, self._missing)):
            # The length left no longer holds all forced words: their writing out began with this token.
            self._writing = self._missing[0][1:]
        self._missing = [word for word in self._missing if not self._ends_with(word)]

    def fork(self) -> SamplingState:
        """An independent copy at the same prefix."""
        twin = copy(self)
        twin.output = list(self.output)
        twin._missing = list(self._missing)
        twin._writing = list(self._writing)
        twin._counts = None if self._counts is None else self._counts.copy()
        twin._seen = None if self._seen is None else self._seen.copy()
        return twin

    def _ends_with(self, tokens: Sequence[int]) -> bool:
        count = len(tokens)
        return count == 0 or (len(self.output) >= count and self.output[-count:] == list(tokens))


def _only(row: Row, token: int) -> Row:
    forced = np.full_like(row, -np.inf)
    forced[token] = 0.0
    return forced


def greedy_token(row: Row) -> int:
    """The most probable token; the first one of equals.

    Raises:
        BrokenModel: if the logits hold NaN, or nothing but minus infinity.
    """
    token = int(row.argmax())
    # NumPy's argmax stops at the first NaN, so one look at the winner finds both faults.
    if not math.isfinite(row[token]) and row[token] != math.inf:
        raise BrokenModel(_fault(row))
    return token


def _fault(row: Row) -> str:
    if np.isnan(row).any():
        return "the model returned NaN logits; its weights or its input are damaged"
    return "no token is left to choose from: every one has been forbidden"


def distribution(row: Row, sampling: Sampling) -> Tensor:
    """Warped probabilities ``[vocab]`` of one row of logits, in the row's own precision.

    Temperature 0 gives all mass to the greedy token.

    Raises:
        BrokenModel: as :func:`greedy_token`.
    """
    best = greedy_token(row)
    if sampling.greedy:
        probs = np.zeros_like(row)
        probs[best] = 1.0
        return torch.from_numpy(probs)
    logits = row / row.dtype.type(max(sampling.temperature, COLDEST))
    if 0 < sampling.top_k < logits.size:
        threshold = np.partition(logits, logits.size - sampling.top_k)[logits.size - sampling.top_k]
        logits[logits < threshold] = -np.inf
    probs = np.exp(logits - logits[best])
    probs /= probs.sum()
    if sampling.top_p < 1.0:
        probs = _keep_nucleus(probs, sampling.top_p)
    if sampling.min_p > 0.0:
        probs = np.where(probs < sampling.min_p * probs[best], 0, probs)
        probs /= probs.sum()
    if sampling.typical_p < 1.0:
        probs = _keep_typical(probs, sampling.typical_p)
    return torch.from_numpy(probs)


def _keep_nucleus(probs: Row, mass: float) -> Row:
    # Sorting the whole vocabulary is slow, and tokens below (1 - mass) / size cannot be in the nucleus.
    candidates = np.flatnonzero(probs > (1.0 - mass) / probs.size)
    if candidates.size == 0:
        return probs
    order = candidates[np.argsort(-probs[candidates], kind="stable")]
    before = np.cumsum(probs[order], dtype=np.float64) - probs[order]
    return _only_these(probs, order[before < mass])


def _keep_typical(probs: Row, mass: float) -> Row:
    support = np.flatnonzero(probs)
    surprise = -np.log(probs[support])
    entropy = float((probs[support] * surprise).sum())
    order = support[np.argsort(np.abs(surprise - entropy), kind="stable")]
    before = np.cumsum(probs[order], dtype=np.float64) - probs[order]
    return _only_these(probs, order[before < mass])


def _only_these(probs: Row, kept: npt.NDArray[np.int64]) -> Row:
    result = np.zeros_like(probs)
    result[kept] = probs[kept]
    result /= result.sum()
    return result


def log_probability(row: Row, token: int) -> float:
    """Natural logarithm of the softmax probability of one token."""
    top = row.max()
    return float(row[token] - top - math.log(np.exp(row - top).sum(dtype=np.float64)))


def most_probable(row: Row, count: int) -> list[tuple[int, float]]:
    """The ``count`` most probable tokens with their log-probabilities, best first, equals by token id."""
    count = min(count, row.size)
    top = row.max()
    log_total = float(top) + math.log(np.exp(row - top).sum(dtype=np.float64))
    # Nearly always the best few lie close to the top, and sorting those alone is much cheaper.
    near = np.flatnonzero(row >= top - 8)
    if near.size < count:
        near = np.argpartition(row, row.size - count)[row.size - count :]
    best = near[np.argsort(-row[near], kind="stable")][:count]
    return [(int(token), float(row[token]) - log_total) for token in best]
