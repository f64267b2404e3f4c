"""What a target says to some prompts, listened to once: what is drafted for it can then be tried many times.

A greedy answer is the same whatever is drafted. So a target that recalls its answers, and what else it found
likely on the way, meets drafts as the real one would, and takes no time for it. It is run by the real engine
and judged by the real verifier. Speeds cannot be taken with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ventris.engine.errors import VentrisError
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.tree import TokenTree
from ventris.model import Model
from ventris.testing.toy import ToyTarget

KEPT = 1024
"""Logits kept of a row; the others are recalled as their mean in probability."""

Prefix = tuple[int, ...]


class Said(NamedTuple):
    """A row of logits: the largest ones, their tokens, and one logit for each of the others."""

    best: Tensor
    tokens: Tensor
    other: Tensor

    @classmethod
    def of(cls, row: Tensor) -> Said:
        """A row ``[vocab]`` made small; the probabilities of all that is kept stay as they are."""
        row = row.detach().float()
        best, tokens = row.topk(min(KEPT, len(row)))
        others = row.index_fill(0, tokens, float("-inf"))
        count = max(len(row) - len(best), 1)
        return cls(best, tokens, others.logsumexp(0) - torch.tensor(float(count)).log())

    def row(self, size: int) -> Tensor:
        """Logits ``[size]``."""
        return self.other.expand(size).clone().index_copy_(0, self.tokens, self.best)


class RecallingTarget(ToyTarget):
    """Says behind each beginning of an answer what it said the first time; elsewhere all is alike.

    Args:
        said: By the tokens before, prompt and all.
        vocab_size: Tokens.
        context_length: Longest text.
    """

    def __init__(self, said: dict[Prefix, Said], vocab_size: int, context_length: int) -> None:
        super().__init__(vocab_size, context_length=context_length)
        self._said = said
        self._nothing = torch.zeros(vocab_size)

    def logits(self, prefix: Sequence[int]) -> Tensor:
        said = self._said.get(tuple(prefix))
        return self._nothing if said is None else said.row(self.vocab_size)


class _Listener:
    """A drafter that never drafts and keeps what the target says."""

    name = "listener"
    shape = "chain"
    draws = False
    taps: Sequence[int] = ()

    def __init__(self) -> None:
        self.said: dict[Prefix, Said] = {}

    def start(self, request: RequestView) -> list[int]:
        return list(request.prompt)

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        return [TokenTree.root(job.root) for job in jobs]

    def observe(self, state: list[int], commit: Commit) -> None:
        if commit.tree is None or commit.next_token is None or commit.logits is None:
            return
        self.said[tuple(state)] = Said.of(commit.logits[0].cpu())
        state.append(commit.next_token)


def recalled(model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Model:
    """The model with its greedy answers to some prompts learnt by heart; it has nothing to say to others.

    Args:
        prompts: Token ids.
        max_new_tokens: Tokens of an answer at most.

    Raises:
        VentrisError: if a prompt cannot be answered.
    """
    listener = _Listener()
    asked = [list(prompt) for prompt in prompts]
    for done in model.generate(asked, max_new_tokens=max_new_tokens, draft=listener, policy="fixed"):
        if done.error is not None:
            raise VentrisError(f"a prompt cannot be answered: {done.error}")
    target = RecallingTarget(listener.said, model.target.vocab_size, model.target.context_length)
    return Model(target, model.tokenizer, model.source)
