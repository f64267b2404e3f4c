"""SpecMemo's central claim: most of the speed of speculation within a fraction of the usual memory.

*Generation memory* is everything but the weights: caches of target and drafter, and what passes take. What
it is compared with is the usual way to hold a cache: room for the longest text that the model knows, taken up
front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

from ventris.bench.schedule import rotated
from ventris.engine.errors import BadInput, OverBudget
from ventris.engine.ledger import MemoryLedger
from ventris.engine.request import Request
from ventris.model import Model
from ventris.papers.on_prompts import OnPrompts
from ventris.papers.reproduction import Reproduction, Row

FIGURE = "96 % of the throughput of unrestricted speculation with 65 % less generation memory (MT-Bench)"

KEPT_SPEED = 0.96
PAPER_SHARE = 0.35
UNLIMITED = 1.0
MB = 1e6


@dataclass(frozen=True, slots=True)
class _Chat:
    """What the conversations came to with one budget: tokens, seconds, peak in bytes."""

    answers: list[list[int]]
    seconds: float
    peak: int

    @property
    def speed(self) -> float:
        return sum(map(len, self.answers)) / self.seconds


def reproduce_specmemo(
    draft: str = "ngram",
    policy: str = "goodput",
    shares: Sequence[float] = (0.5, PAPER_SHARE, 0.2, 0.1, 0.05),
    turns: int = 6,
    batch: int = 10,
    data: str | None = None,
    per_category: int | None = None,
    max_new_tokens: int = 64,
    repeats: int = 1,
    **settings: Any,
) -> Reproduction:
    """Throughput and peak memory of conversations as the budget shrinks, and of a batch within it.

    Args:
        draft: The drafter.
        policy: How much it drafts, where memory allows.
        shares: Budgets, as shares of full-length caches for target and drafter.
        turns: Prompts that make one conversation, with the answers in between.
        batch: Requests side by side.
        data: Prompts as JSONL; the built-in ones when not given.
        per_category: Prompts of each category; all when not given.
        max_new_tokens: Output tokens of each turn at most.
        repeats: How often each budget is run; medians count.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.

    Raises:
        BadInput: for a number that makes no sense.
    """
    if (
        min(turns, batch, repeats, max_new_tokens) < 1
        or not shares
        or not all(0 < share < 1 for share in shares)
    ):
        raise BadInput("shares must lie between 0 and 1, and turns, batch, repeats and tokens be 1 or more")
    started = perf_counter()
    measured = OnPrompts(data, per_category, max_new_tokens, repeats, settings)
    model = measured.model
    prompts = measured.prompts()
    chats = [prompts[first : first + turns] for first in range(0, len(prompts), turns)]
    asked = {"draft": draft, "policy": policy, "max_new_tokens": max_new_tokens}
    full = _full_length(model, asked)

    _converse(model, chats[:1], None, asked)  # warms up
    found: dict[float, list[_Chat]] = {}
    refused: dict[float, str] = {}
    for repeat in range(repeats):
        for share in rotated([UNLIMITED, *shares], repeat):
            budget = None if share == UNLIMITED else int(share * full)
            try:
                found.setdefault(share, []).append(_converse(model, chats, budget, asked))
            except OverBudget as error:
                refused[share] = str(error)
    speeds = {share: median(chat.speed for chat in runs) for share, runs in found.items() if runs}
    peaks = {share: max(chat.peak for chat in runs) for share, runs in found.items() if runs}

    rows = []
    for share in (share for share in shares if share in speeds):
        name = f"within {share:.0%} of full-length caches"
        rows.append(Row(f"throughput {name}", speeds[share], "tokens/s", speeds[UNLIMITED]))
        rows.append(Row(f"peak generation memory {name}", peaks[share] / MB, "MB", full / MB))
    fast = [share for share in speeds if speeds[share] >= KEPT_SPEED * speeds[UNLIMITED]]
    least = min(fast)
    rows.append(Row(f"least memory with {KEPT_SPEED:.0%} of the speed", peaks[least] / MB, "MB", full / MB))
    within = int(max(shares) * full)
    sides = {count: _side_by_side(model, prompts, within, count, asked) for count in (1, batch)}
    name = (
        f"throughput of {batch} side by side within {max(shares):.0%} of ONE full-length cache, against one"
    )
    rows.append(Row(name, sides[batch], "tokens/s", sides[1]))
    same = all(chat.answers == found[UNLIMITED][0].answers for runs in found.values() for chat in runs)
    notes = measured.notes(
        f"draft {draft}, policy {policy}; {len(chats)} conversations of up to {turns} turns, "
        f"{max_new_tokens} tokens each",
        f"answers {'equal' if same else 'DIFFER'} at all budgets",
        *(f"within {share:.0%}: refused, {reason}" for share, reason in refused.items()),
    )
    return Reproduction("specmemo", FIGURE, rows, perf_counter() - started, notes)


def _request(model: Model, prompt: list[int], asked: dict[str, Any]) -> Request:
    return model.request(prompt, ignore_eos=True, **asked)


def _full_length(model: Model, asked: dict[str, Any]) -> int:
    """Bytes of caches of target and drafter with room for the longest text, as they are really taken."""
    ledger = MemoryLedger()
    drafter = _request(model, [0], asked).drafter
    models = (model.target, *(m for m in getattr(drafter, "models", ()) if hasattr(m, "context_length")))
    caches = [each.new_cache(model.target.context_length, ledger) for each in models]
    for cache in caches:
        cache.reserve(1)
    return ledger.peak


def _converse(
    model: Model, chats: Sequence[Sequence[list[int]]], budget: int | None, asked: dict[str, Any]
) -> _Chat:
    """Hold all conversations, one after the other; each keeps its rows between turns where they fit."""
    answers, peak = [], 0
    began = perf_counter()
    for chat in chats:
        # A limit out of reach books like any other, and holds nothing back.
        ledger = MemoryLedger(budget if budget is not None else 1 << 60)
        engine = model.engine(1, ledger, prefix_bytes=ledger.limit or 0)
        text: list[int] = []
        try:
            for prompt in chat:
                text += prompt
                done = engine.add(_request(model, text, asked))
                list(engine.run())
                if done.exception is not None:
                    raise done.exception
                answers.append(done.tokens)
                text += done.tokens
        finally:
            engine.close()
        peak = max(peak, ledger.peak)
    return _Chat(answers, perf_counter() - began, peak)


def _side_by_side(
    model: Model, prompts: Sequence[list[int]], budget: int, count: int, asked: dict[str, Any]
) -> float:
    """Tokens a second of all prompts, at most ``count`` at a time, within a budget."""
    engine = model.engine(count, MemoryLedger(budget))
    began = perf_counter()
    completions = [engine.add(_request(model, prompt, asked)) for prompt in prompts]
    list(engine.run())
    seconds = perf_counter() - began
    engine.close()
    for done in completions:
        if done.exception is not None:
            raise done.exception
    return sum(len(done.tokens) for done in completions) / seconds
