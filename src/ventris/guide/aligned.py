"""``Aligned``: texts from the target's distribution *given* the grammar, not masked step by step.

Masking and renormalising each token favours prefixes that the target likes and that seldom lead to a valid
text. What is missing is the expected future c(w): the chance that a text which begins with w ends valid. It
is unknown, but bounded from above by what was seen: 1 for a prefix never visited, else the sum of
p(t|w) c(wt) over the allowed tokens t. A tree of visited prefixes keeps these bounds.

- ``adaptive`` draws with weights p(t|w) c(wt): adaptive sampling with approximate expected futures (ASAp,
  Park et al. 2024, arXiv 2405.21047). Each text makes the bounds tighter; the law approaches p(x | valid).
- ``exact`` also breaks a text off at a prefix seen for the first time, with the chance that p falls out of
  the grammar there, and begins anew. The products telescope, so each text that is finished has exactly the
  probability p(x) / c(root) = p(x | valid), from the first one on; the bounds make breaking off ever rarer.
  (Constrained adaptive rejection sampling: Parys et al. 2025, arXiv 2510.01902.)
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

import numpy as np
from torch import Tensor

from ventris.engine.errors import BadInput, Incompatible, VentrisError
from ventris.engine.parts import NodeView, RequestView
from ventris.engine.randomness import uniform
from ventris.engine.request import Completion, Guarantee
from ventris.engine.sampling import Sampling
from ventris.guide.checked_state import OnlyBrokenEnds
from ventris.guide.hard import HardGuide
from ventris.guide.hard_state import HardState
from ventris.guide.vocabulary import ByteTokenizer

Method = Literal["adaptive", "exact"]

BREAKING_OFF = 101
"""Purpose of the draws that break texts off; none of the engine's own."""

KEPT_PROMPTS = 64


@dataclass(slots=True)
class Prefix:
    """A visited prefix.

    Attributes:
        probability: p of its last token.
        future: Upper bound of the chance that a text goes on validly from here.
        allowed: p of the tokens that the grammar allows here; ``None`` before the first visit.
    """

    probability: float = 1.0
    future: float = 1.0
    allowed: float | None = None
    below: dict[int, Prefix] = field(default_factory=dict)

    def refresh(self) -> None:
        """The bound from those below."""
        lost = sum(child.probability * (1.0 - child.future) for child in self.below.values())
        self.future = min(max((self.allowed or 0.0) - lost, 0.0), 1.0)


class Aligned:
    """Draws from the target's distribution given the language of a hard guide.

    Args:
        guide: The language.
        method: ``"exact"`` is for :meth:`sample`, which begins anew where a text is broken off;
            ``"adaptive"`` works in any generation and learns from one to the next.
    """

    masks = True
    forkable = False

    def __init__(self, guide: HardGuide, method: Method = "adaptive") -> None:
        if method not in get_args(Method):
            raise BadInput(f"method is {method!r}; it must be one of: {', '.join(get_args(Method))}")
        if guide.close != "free":
            raise Incompatible(
                f"guide {guide.name!r}",
                "Aligned",
                "closing in time refuses valid texts; Aligned conditions on the length by itself",
            )
        self.guide = guide
        self.method = method
        self.name = f"aligned {guide.name}"
        self.law = "reweighted by the expected futures that earlier texts have shown"
        self._roots: OrderedDict[Any, Prefix] = OrderedDict()
        self._lock = threading.Lock()

    def bind(self, tokenizer: ByteTokenizer | None) -> Self:
        """The guide for one tokenizer; what it has learnt is shared."""
        bound = copy(self)
        bound.guide = self.guide.bind(tokenizer)
        return bound

    def check_with(self, parts: Sequence[object], sampling: Sampling) -> None:
        """Refuse what has no conditional distribution, or changes it behind the guide's back."""
        if sampling.greedy:
            raise Incompatible("guide 'Aligned'", "temperature 0", "it draws texts; set a temperature")
        if sampling.top_k or sampling.top_p < 1 or sampling.min_p > 0 or sampling.typical_p < 1:
            raise Incompatible(
                "guide 'Aligned'", "top_k, top_p, min_p or typical_p", "they cut the distribution after it"
            )
        for part in parts:
            name = getattr(part, "name", str(part))
            if not getattr(part, "exact", True):
                raise Incompatible("guide 'Aligned'", f"verifier {name!r}", "its draws are not exact")
            if hasattr(part, "masks"):
                raise Incompatible("guide 'Aligned'", f"guide {name!r}", "it must see the whole distribution")

    def start(self, request: RequestView) -> AlignedState:
        """State for a new request.

        Raises:
            BadInput: if no token can end the text.
        """
        inner = self.guide.start(request)
        if not request.end_ids:
            raise BadInput("Aligned needs a token that ends the text; do not ignore the end token")
        key = (tuple(request.prompt), request.max_new_tokens, request.sampling.temperature)
        with self._lock:
            root = self._roots.setdefault(key, Prefix())
            self._roots.move_to_end(key)
            if len(self._roots) > KEPT_PROMPTS:
                self._roots.popitem(last=False)
        return AlignedState(self, inner, root, request)

    def sample(self, model: Any, prompt: Any, attempts: int = 1000, **settings: Any) -> Completion:
        """One text with exactly the probability that the target gives it among the valid ones that fit.

        Args:
            model: A :class:`ventris.Model`.
            prompt: As for ``model.generate``.
            attempts: Beginnings at most.
            settings: As for ``model.generate``, without guides; the temperature is 1 when not given.

        Raises:
            Incompatible: if the method is not exact, or a setting does not go with it.
            VentrisError: if every attempt was broken off.
        """
        if self.method != "exact":
            raise Incompatible("Aligned.sample", f"method {self.method!r}", "make it with method='exact'")
        seed = int(settings.pop("seed", 0))
        settings.setdefault("temperature", 1.0)
        bound = self.bind(model.tokenizer)
        engine = model.engine(max_batch=1, prefix_bytes=2**28)
        try:
            for attempt in range(attempts):
                states: list[AlignedState] = []
                once = _Watched(bound, states)
                asked = model.request(prompt, **settings, guides=once, seed=seed * 1_000_003 + attempt)
                completion: Completion = engine.add(asked)
                for _ in engine.run():
                    pass
                if completion.exception is not None:
                    raise completion.exception
                whole = states and not states[0].broken_off and completion.finish_reason == "stop"
                # A text may end with a rule broken that no mask keeps; as one attempt of many it is refused.
                if whole and completion.valid:
                    statement = (
                        "exact: drawn from the target's distribution of texts that are valid under "
                        f"{self.guide.name} and end within {asked.max_new_tokens} tokens"
                    )
                    completion.guarantee = Guarantee(True, statement)
                    return completion
        finally:
            engine.close()
        raise VentrisError(
            f"all {attempts} attempts were broken off; the target finds valid texts unlikely, raise attempts"
        )


class _Watched:
    """An aligned guide that notes the states it starts."""

    masks = True
    forkable = False

    def __init__(self, aligned: Aligned, states: list[AlignedState]) -> None:
        self.name = aligned.name
        self.check_with = aligned.check_with
        self._aligned = aligned
        self._states = states

    def start(self, request: RequestView) -> AlignedState:
        self._states.append(self._aligned.start(request))
        return self._states[-1]


class AlignedState:
    """A place in a text, and the visited prefixes on the way to it.

    Attributes:
        broken_off: The text was given up; what it holds is no sample.
        chance: That it would not be given up at the present place.
    """

    def __init__(self, aligned: Aligned, inner: HardState, root: Prefix, request: RequestView) -> None:
        self.inner = inner
        self.broken_off = False
        self.chance = 1.0
        self._exact = aligned.method == "exact"
        self._request = request
        self._path = [root]
        self._probs = np.empty(0)

    def adjust(self, logits: Tensor, view: NodeView) -> Tensor:
        """Weigh ``logits`` ``[vocab]`` by the expected futures, in place."""
        sampling, row = self._request.sampling, logits.numpy()
        scaled = row.astype(np.float64) / sampling.temperature
        probs = np.exp(scaled - scaled.max())
        self._probs = probs / probs.sum()
        try:
            self.inner.adjust(logits, view)
        except OnlyBrokenEnds:
            # No valid text begins so: its future is nothing.
            row[:] = -np.inf
        ends = [token for token in self._request.end_ids if token < len(row)]
        if self._request.remaining <= 1:
            # The last token must end the text: what does not fit is not valid.
            kept = row[ends].copy()
            row[:] = -np.inf
            row[ends] = kept
        here = self._path[-1]
        first_visit = here.allowed is None
        self.chance = 1.0
        if first_visit:
            here.allowed = float(self._probs[np.isfinite(row)].sum())
            self.chance = here.allowed if self._exact else 1.0
            for prefix in reversed(self._path):
                prefix.refresh()
        if here.future <= 0.0 or (first_visit and self._breaks_off()):
            self.broken_off = True
            row[:] = -np.inf
            row[ends] = 0.0
            return logits
        for token, child in here.below.items():
            weight = np.log(child.future) if child.future > 0 else -np.inf
            row[token] += sampling.temperature * weight
        return logits

    def _breaks_off(self) -> bool:
        request = self._request
        return uniform(request.sampling.seed, BREAKING_OFF, request.generated) >= self.chance

    def advance(self, token: int) -> None:
        """Follow a token."""
        self.inner.advance(token)
        below = self._path[-1].below
        if token not in below:
            below[token] = Prefix(float(self._probs[token]))
        self._path.append(below[token])

    @property
    def valid(self) -> bool:
        """Whether the text is a sample, and whole."""
        return not self.broken_off and self.inner.valid
