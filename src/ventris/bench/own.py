"""A method of this toolkit as a contestant: the engine is run step by step and timed from outside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ventris.bench.clock import Clock
from ventris.bench.contestant import Decoded, Kind, Limits
from ventris.bench.methods import AUTOREGRESSIVE, Method
from ventris.bench.record import Entrant
from ventris.engine.errors import VentrisError
from ventris.engine.target import Rows
from ventris.parts import build_drafter, build_guides, build_one

if TYPE_CHECKING:
    from ventris.engine.request import Request
    from ventris.model import Model

BFLOAT16_STEP = 2.0**-7
"""Distance of neighbouring bfloat16 numbers, relative to them."""

NEAR_TIE_STEPS = 2


class OwnMethod:
    """A method on one loaded model.

    Its parts are built once, before anything is timed.

    Args:
        model: The loaded model.
        method: Which parts.
        sampling: Further settings of every request, such as temperature and seed.
        name: Its name where it differs from the method's (two models in one race).
        twin: Whose output it must repeat; plain decoding by default.

    Raises:
        BadInput, Incompatible: if the parts do not exist or do not fit.
    """

    kind: Kind = "method"

    def __init__(
        self,
        model: Model,
        method: Method,
        sampling: dict[str, Any] | None = None,
        name: str | None = None,
        twin: str = AUTOREGRESSIVE,
    ) -> None:
        self.model = model
        self.method = method
        self.name = name or method.name
        self.twin = twin
        workshop = model.workshop
        parts: dict[str, Any] = {
            "draft": build_drafter(method.draft, workshop),
            "guides": build_guides(method.guides, workshop),
        }
        if method.policy is not None:
            parts["policy"] = build_one("policy", method.policy, workshop)
        if method.verifier is not None:
            parts["verifier"] = build_one("verifier", method.verifier, workshop)
        self._settings = {**parts, **(sampling or {})}

    def request(self, prompt: Sequence[int], limits: Limits) -> Request:
        """A request of this method."""
        return self.model.request(
            list(prompt),
            max_new_tokens=limits.max_new_tokens,
            # The limits' own ends count, the same for everybody.
            ignore_eos=True,
            stop_ids=sorted(limits.end_ids),
            **self._settings,
        )

    def decode(self, prompt: Sequence[int], limits: Limits) -> Decoded:
        """Decode one prompt; the parts' seconds are those after the first token."""
        engine = self.model.engine(max_batch=1)
        completion = engine.add(self.request(prompt, limits))
        stats = completion.stats
        before: dict[str, float] = {}
        steps = 0
        clock = Clock()
        try:
            for event in engine.run():
                if completion.error is not None:
                    raise VentrisError(completion.error)
                clock.arrived(len(event.tokens))
                if not before:
                    before, steps = dict(stats.seconds), stats.steps
        finally:
            engine.close()
        return Decoded(
            completion.tokens,
            clock,
            str(completion.finish_reason),
            passes=stats.steps,
            decode_passes=stats.steps - steps,
            drafted=stats.drafted,
            accepted=stats.accepted,
            proposed_by_depth=list(stats.proposed_by_depth),
            accepted_by_depth=list(stats.accepted_by_depth),
            parts={part: seconds - before.get(part, 0.0) for part, seconds in stats.seconds.items()},
        )

    @cached_property
    def entrant(self) -> Entrant:
        """Its row in the report."""
        request = self.request([0], Limits(2, frozenset()))
        guarantee = request.guarantee()
        repeats_tokens = (
            request.sampling.greedy or request.drafter is None or request.verifier.name == "coupled"
        )
        spec = {key: getattr(self.method, key) for key in ("draft", "policy", "verifier", "guides")}
        return Entrant(
            name=self.name,
            kind="method",
            plain=self.twin,
            spec={key: value for key, value in spec.items() if value is not None},
            promised=guarantee.exact and repeats_tokens and not self.method.guides and self.name != self.twin,
            statement=guarantee.statement,
        )

    def logit_gap(self, prefix: Sequence[int], tokens: tuple[int, int]) -> tuple[float, float] | None:
        """Distance of two tokens' logits after a prefix, and what bfloat16 may round them by (else 0)."""
        target = self.model.target
        count = len(prefix)
        cache = target.new_cache(count)
        try:
            rows = Rows(cache, list(prefix), range(-1, count - 1), wanted=(count - 1,))
            logits = target.forward([rows]).logits[0][0]
        finally:
            cache.release()
        first, second = (float(logits[token]) for token in tokens)
        coarse = "bfloat16" in str(getattr(target, "dtype", ""))
        noise = NEAR_TIE_STEPS * BFLOAT16_STEP * max(abs(first), abs(second)) if coarse else 0.0
        return abs(first - second), noise
