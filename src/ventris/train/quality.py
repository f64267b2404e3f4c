"""What tuning did to a target: how far it has moved, measured on texts that neither was tuned on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ventris.engine.errors import BadInput
from ventris.engine.target import Target
from ventris.train.hidden_states import hidden_rows
from ventris.train.windows import Text

CHUNK = 128
"""Positions whose logits are held at once."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over the tokens that the target said.

    Attributes:
        kl: KL(p_before || p_after) in nats a token.
        agreement: Share of places where both find the same token likeliest.
        perplexity_before, perplexity_after: Of the texts.
    """

    kl: float
    agreement: float
    perplexity_before: float
    perplexity_after: float

    @property
    def perplexity_ratio(self) -> float:
        """Perplexity after tuning as a multiple of that before."""
        return self.perplexity_after / self.perplexity_before


@torch.no_grad()
def tuned_quality(before: Target, after: Target, texts: Sequence[Text]) -> Quality:
    """Compare two targets of one vocabulary.

    Raises:
        BadInput: if the texts hold no answers.
    """
    sums = torch.zeros(4, dtype=torch.float64)
    count = 0
    for text in texts:
        tokens = torch.from_numpy(text.tokens).long()
        places = torch.from_numpy(text.answer[1:].copy()).nonzero()[:, 0]
        if not len(places):
            continue
        rows = [
            hidden_rows(target, tokens[:-1].tolist(), [target.num_layers])[places, 0]
            for target in (before, after)
        ]
        for start in range(0, len(places), CHUNK):
            said = tokens[places[start : start + CHUNK] + 1][:, None]
            log_q, log_p = (
                target.head(some[start : start + CHUNK]).float().log_softmax(-1).cpu()
                for target, some in zip((before, after), rows, strict=True)
            )
            sums += torch.stack(
                [
                    (log_q.exp() * (log_q - log_p)).sum(),
                    (log_q.argmax(-1) == log_p.argmax(-1)).sum(),
                    -log_q.gather(1, said).sum(),
                    -log_p.gather(1, said).sum(),
                ]
            ).double()
        count += len(places)
    if not count:
        raise BadInput("the held-out texts hold no answers to measure on; give more prompts")
    divergence, agreed, before_nats, after_nats = (sums / count).tolist()
    return Quality(
        divergence, agreed, float(torch.tensor(before_nats).exp()), float(torch.tensor(after_nats).exp())
    )
