"""How likely a given continuation is, through the whole stack of guides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ventris.engine.ledger import MemoryLedger
from ventris.engine.parts import RequestView
from ventris.engine.request import Request, check_tokens
from ventris.engine.sampling import Row, SamplingState, log_probability
from ventris.engine.stream import Stream, forward
from ventris.engine.target import Target
from ventris.engine.tree import TokenTree
from ventris.engine.walk import Walk


def score_continuation(target: Target, request: Request, tokens: Sequence[int]) -> list[float]:
    """Log-probability of each of ``tokens`` after the request's prompt, one forward in all.

    Penalties, biases and guides of the request count; temperature and truncation do not.

    Raises:
        BadInput, Incompatible: if the request cannot be served, or a token is none of the target's.
    """
    request.check()
    check_tokens(request.prompt, target.vocab_size, "prompt", request.embeddings)
    check_tokens(tokens, target.vocab_size, "continuation")
    rows = continuation_logits(target, request, tokens)
    return [log_probability(row, token) for row, token in zip(rows, tokens, strict=True)]


def continuation_logits(target: Target, request: Request, tokens: Sequence[int]) -> Iterator[Row]:
    """What the target thinks before each of ``tokens``, given the prompt and the tokens before.

    Yields:
        float32 [vocab]: logits after the request's penalties, biases and guides.
    """
    ledger = MemoryLedger()
    view = RequestView(
        target,
        request.prompt,
        list(request.prompt),
        request.sampling,
        len(tokens) + 1,
        frozenset(),
        ledger,
    )
    sampling = SamplingState(request.sampling, request.prompt, (), len(tokens) + 1, target.vocab_size)
    guides = [(guide.name, guide.start(view)) for guide in request.guides]
    tree = TokenTree.chain([request.prompt[-1], *tokens[:-1]])
    streams = [Stream(target, request.prompt, request.embeddings, ledger=ledger)]
    taps: list[int] = []
    for _, state in guides:
        needs = getattr(state, "needs", None)
        if needs is not None:
            streams += needs(tree).streams
            taps += needs(tree).taps
    results = forward([(s, s.rows(tree, range(len(tree))), taps if s is streams[0] else ()) for s in streams])
    hidden = {layer: rows[streams[0].lead :] for layer, rows in results[0].hidden.items()}
    by_stream = {id(s): result.logits for s, result in zip(streams[1:], results[1:], strict=True)}
    walk = Walk(tree, results[0].logits, view, sampling, guides, hidden, by_stream)
    try:
        for token in tokens:
            yield walk.logits()
            walk.take(token)
    finally:
        for stream in streams:
            stream.cache.release()
