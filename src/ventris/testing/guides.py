"""Small guides of each kind, for tests and as examples: a stateful mask, an amateur stream, a hidden tap."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ventris.engine.parts import Needs, NodeView, RequestView
from ventris.engine.target import Target
from ventris.engine.tree import TokenTree


class NoRepeatedPairs:
    """Forbids any pair of tokens that the output already holds; it can be forked."""

    name = "no-repeated-pairs"
    masks = True
    forkable = True

    def start(self, request: RequestView) -> _Pairs:
        return _Pairs()


class _Pairs:
    def __init__(self, seen: dict[int, set[int]] | None = None, last: int = -1) -> None:
        self.seen = seen or {}
        self.last = last

    def adjust(self, logits: Tensor, view: NodeView) -> Tensor:
        logits[list(self.seen.get(self.last, ()))] = -torch.inf
        return logits

    def advance(self, token: int) -> None:
        if self.last >= 0:
            self.seen.setdefault(self.last, set()).add(token)
        self.last = token

    def fork(self) -> _Pairs:
        return _Pairs({first: set(seconds) for first, seconds in self.seen.items()}, self.last)

    @property
    def valid(self) -> bool:
        return True


class Amateur:
    """Contrast: subtracts a weaker model's log-probabilities, scored over the same tree in its own stream."""

    name = "amateur"
    masks = False
    forkable = False

    def __init__(self, model: Target, weight: float = 0.5) -> None:
        self.model = model
        self.weight = weight
        self.models = [model]

    def start(self, request: RequestView) -> _AmateurState:
        return _AmateurState(self, request)


class _AmateurState:
    def __init__(self, guide: Amateur, request: RequestView) -> None:
        self.guide = guide
        self.streams = [request.stream(guide.model, "amateur")]

    def needs(self, tree: TokenTree) -> Needs:
        return Needs(streams=self.streams)

    def adjust(self, logits: Tensor, view: NodeView) -> Tensor:
        amateur = view.logits_of(self.streams[0]).to(logits)
        return logits.log_softmax(-1) - self.guide.weight * amateur.log_softmax(-1)

    def advance(self, token: int) -> None:
        """The engine moves the stream; the guide itself remembers nothing."""


class HiddenShift:
    """Rolls the logits by a number read from a hidden row, so that a wrong row is a wrong token."""

    name = "hidden-shift"
    masks = False
    forkable = True

    def __init__(self, layer: int) -> None:
        self.layer = layer

    def start(self, request: RequestView) -> _HiddenShiftState:
        return _HiddenShiftState(self.layer)


class _HiddenShiftState:
    def __init__(self, layer: int) -> None:
        self.layer = layer

    def needs(self, tree: TokenTree) -> Needs:
        return Needs(taps=[self.layer])

    def adjust(self, logits: Tensor, view: NodeView) -> Tensor:
        return logits.roll(int(view.hidden(self.layer)[0].abs() * 1000) % 3)

    def advance(self, token: int) -> None:
        """Nothing to remember."""

    def fork(self) -> _HiddenShiftState:
        return self


class Forbid:
    """Forbids the same tokens everywhere; forbidding all of them shows a dead end."""

    name = "forbid"
    masks = True
    forkable = True

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = list(tokens)

    def start(self, request: RequestView) -> Forbid:
        return self

    def adjust(self, logits: Tensor, view: NodeView) -> Tensor:
        logits[self.tokens] = -torch.inf
        return logits

    def advance(self, token: int) -> None:
        """Nothing to remember."""

    def fork(self) -> Forbid:
        return self
