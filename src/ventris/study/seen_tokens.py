"""What is written down of every token: whether the small model alone would have written another one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.engine.stream import Stream, catch_up, forward
from ventris.engine.target import Target
from ventris.engine.tree import TokenTree

BEST = 10
"""Probabilities kept of every distribution, the largest ones; what the paper's code gives its router."""

CHUNK = 64
"""Tokens scored in one pass, which bounds the logits that are held."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A text that the models wrote together.

    Attributes:
        prompt, tokens: Token ids.
        cut: It reached the limit of tokens and would go on.
    """

    prompt: Sequence[int]
    tokens: Sequence[int]
    cut: bool


@dataclass(frozen=True, slots=True)
class Beliefs:
    """What a model thinks before each of n tokens.

    Attributes:
        choice: Its most probable token, int64 ``[n]``.
        top: Its largest probabilities, descending, float32 ``[n, BEST]``; 0 where there are fewer tokens.
        entropy: In nats, float32 ``[n]``.
    """

    choice: Tensor
    top: Tensor
    entropy: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> Beliefs:
        """Of logits ``[n, vocab]``."""
        rows = logits.detach().cpu()
        # numpy takes the first of equal logits, as the engine does.
        choice = torch.from_numpy(rows.numpy().argmax(-1))
        probabilities = rows.double().softmax(-1)
        top = probabilities.topk(min(BEST, probabilities.shape[1])).values
        padded = torch.nn.functional.pad(top, (0, BEST - top.shape[1]))
        return cls(choice, padded.float(), torch.special.entr(probabilities).sum(-1).float())

    @classmethod
    def joined(cls, parts: Sequence[Beliefs]) -> Beliefs:
        """Those of several stretches, one after the other."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True, slots=True)
class SeenTokens:
    """Tokens of several answers and what the small model thought before each, all ``[n]``.

    Attributes:
        question: Which answer a token belongs to, int64, ascending.
        place: Its place in the answer, from 0, int64.
        length: Tokens of that answer, int64.
        mismatch: The small model alone would have written another token, bool.
        beliefs: Of the small model.
    """

    question: Tensor
    place: Tensor
    length: Tensor
    mismatch: Tensor
    beliefs: Beliefs

    def __len__(self) -> int:
        return len(self.question)

    def of(self, chosen: Tensor) -> SeenTokens:
        """Some of the tokens, by a mask ``[n]``."""
        beliefs = Beliefs(*(getattr(self.beliefs, field.name)[chosen] for field in fields(Beliefs)))
        return SeenTokens(
            self.question[chosen], self.place[chosen], self.length[chosen], self.mismatch[chosen], beliefs
        )

    def arrays(self) -> Iterator[tuple[str, Tensor]]:
        """Everything by name, to be stored."""
        yield from ((name, getattr(self, name)) for name in ("question", "place", "length", "mismatch"))
        yield from ((name, getattr(self.beliefs, name)) for name in ("choice", "top", "entropy"))


def see(small: Target, answers: Sequence[Answer]) -> SeenTokens:
    """Let the small model read answers, and note where it would have written something else.

    On the path that is given this is what the paper's loop logs when the large model is always asked:
    the small model sees the same prefixes whether it reads them at once or one by one.

    Raises:
        BadInput: if an answer does not fit into the small model's context, or there is no token at all.
    """
    if not any(answer.tokens for answer in answers):
        raise BadInput("there is no token in any answer; nothing can be compared")
    beliefs = Beliefs.joined([part for answer in answers for part in _read(small, answer)])
    lengths = torch.tensor([len(answer.tokens) for answer in answers])
    written = torch.cat([torch.tensor(list(answer.tokens), dtype=torch.int64) for answer in answers])
    return SeenTokens(
        torch.arange(len(answers)).repeat_interleave(lengths),
        torch.cat([torch.arange(int(length)) for length in lengths]),
        lengths.repeat_interleave(lengths),
        beliefs.choice != written,
        beliefs,
    )


def _read(small: Target, answer: Answer) -> Iterable[Beliefs]:
    """What the small model thinks before each token of an answer, in stretches."""
    total = len(answer.prompt) + len(answer.tokens)
    if total > small.context_length:
        raise BadInput(
            f"a prompt and its answer come to {total} tokens, and a small model takes "
            f"{small.context_length}; ask for fewer tokens or shorter prompts"
        )
    stream = Stream(small, list(answer.prompt), capacity=total)
    try:
        catch_up(stream, CHUNK)
        for first in range(0, len(answer.tokens), CHUNK):
            part = answer.tokens[first : first + CHUNK]
            tree = TokenTree.chain([stream.pending[-1], *part[:-1]])
            (result,) = forward([(stream, stream.rows(tree, range(len(tree))), ())])
            yield Beliefs.of(result.logits)
            stream.advance(tree, range(len(tree)), part[-1])
    finally:
        stream.cache.release()
