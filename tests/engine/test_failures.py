"""A request that fails half-way still hands out every token that was settled, whoever had settled it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ventris.draft import DraftModel, NGram
from ventris.engine.batch import Engine, Event
from ventris.engine.errors import VentrisError
from ventris.engine.parts import Needs
from ventris.engine.request import Completion, Request
from ventris.engine.sampling import Sampling
from ventris.engine.trace import Trace
from ventris.engine.tree import TokenTree
from ventris.model import Model
from ventris.policy import Fixed
from ventris.testing.toy import ToyTarget
from ventris.verify import Block, Coupled, Greedy, Typical

TARGET = ToyTarget(vocab_size=12, memory=2, sharpness=5.0)
PROMPT = [1, 2, 3, 1, 2]
LETTERS = "abcdefghijkl"


class Enough(VentrisError):
    """The guide's own."""


class StopsAfter:
    """Allows the token after the last one, modulo 12, and fails behind some of them.

    Args:
        tokens: So many may follow.
        ahead: Forced tokens told at a time.
        forced_from: Place from which they are told.
    """

    name = "stops-after"
    masks = True
    forkable = False

    def __init__(self, tokens: int, ahead: int = 0, forced_from: int = 0) -> None:
        self.tokens = tokens
        self.ahead = ahead
        self.forced_from = forced_from

    def start(self, request: Any) -> StopsAfterState:
        return StopsAfterState(self, request.prompt[-1])


class StopsAfterState:
    def __init__(self, guide: StopsAfter, last: int) -> None:
        self.guide = guide
        self.last = last
        self.followed = 0

    def forced(self) -> list[int]:
        if self.followed < self.guide.forced_from:
            return []
        count = min(self.guide.ahead, self.guide.tokens - self.followed)
        return [(self.last + 1 + step) % 12 for step in range(count)]

    def adjust(self, logits: Any, view: Any) -> Any:
        if self.followed >= self.guide.tokens:
            raise Enough(f"no more than {self.guide.tokens} tokens")
        allowed = (self.last + 1) % 12
        value = float(logits[allowed])
        logits[:] = -float("inf")
        logits[allowed] = value
        return logits

    def advance(self, token: int) -> None:
        self.last = token
        self.followed += 1


class Letters:
    """Every token is a letter; each comes out when the next one is there, as halves of characters do."""

    def __init__(self) -> None:
        self.held = ""

    def push(self, token: int) -> str:
        said, self.held = self.held, LETTERS[token]
        return said

    def finish(self) -> str:
        said, self.held = self.held, ""
        return said


def decode(guide: StopsAfter, drafter: Any = None, **settings: Any) -> tuple[Completion, list[Event]]:
    sampling = Sampling(**settings.pop("sampling", {}))
    engine = Engine(TARGET, detokenizer=Letters)
    verifier = Greedy() if sampling.greedy else Coupled()
    completion = engine.add(Request(PROMPT, verifier, Fixed(), 40, sampling, drafter, [guide], **settings))
    events = list(engine.run())
    assert engine.ledger.total == 0
    return completion, events


def expected(tokens: int) -> list[int]:
    return [(PROMPT[-1] + 1 + step) % 12 for step in range(tokens)]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 3}], ids=["greedy", "drawn"])
@pytest.mark.parametrize("ahead", [0, 2, 5, 30])
@pytest.mark.parametrize("drafter", ["none", "ngram", "model"])
@pytest.mark.parametrize("tokens", [0, 1, 7, 20])
def test_all_settled_tokens_come_with_the_error(
    drafter: str, ahead: int, tokens: int, sampling: dict[str, Any]
) -> None:
    makes = {"none": None, "ngram": NGram(), "model": DraftModel(TARGET)}
    done, events = decode(StopsAfter(tokens, ahead), makes[drafter], sampling=sampling)
    assert done.finish_reason == "error"
    assert done.error == f"no more than {tokens} tokens"
    assert done.tokens == expected(tokens)
    assert done.text == "".join(LETTERS[token] for token in done.tokens)
    assert done.stats.new_tokens == tokens
    # Whoever follows the events is told the same, with a source for each token.
    assert [token for event in events for token in event.tokens] == done.tokens
    assert "".join(event.text for event in events) == done.text
    assert all(len(event.sources) == len(event.tokens) for event in events)
    assert [event.finished for event in events] == [False] * (len(events) - 1) + [True]


@pytest.mark.parametrize("watched", [{"logprobs": 1}, {"trace": Trace()}], ids=["logprobs", "trace"])
def test_what_is_said_of_each_token_is_there_too(watched: dict[str, Any]) -> None:
    done, _ = decode(StopsAfter(9, ahead=4), **watched)
    assert done.tokens == expected(9)
    if done.logprobs is not None:
        assert [entry.token for entry in done.logprobs] == done.tokens
    if done.trace is not None:
        assert [visit.token for step in done.trace.steps for visit in step.visits] == done.tokens
        assert all(step.seconds for step in done.trace.steps)


def test_a_text_that_was_whole_before_the_failure_has_not_failed() -> None:
    whole = "".join(LETTERS[token] for token in expected(12))
    for ahead in (0, 5, 30):
        done, _ = decode(StopsAfter(12, ahead), stop=[whole[-3:-1]])
        assert (done.finish_reason, done.error) == ("stop", None)
        assert done.text == whole[:-3]


def test_a_request_that_gives_way_hands_out_what_was_dictated(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise MemoryError("the budget is spent")

    engine = Engine(TARGET, detokenizer=Letters)
    done = engine.add(Request(PROMPT, Greedy(), Fixed(), 40, guides=[StopsAfter(20, 3, forced_from=1)]))
    engine.step()
    assert done.tokens == expected(1)
    monkeypatch.setattr("ventris.engine.batch.score", full)
    [event] = engine.step()
    assert (done.finish_reason, done.error) == ("error", "the budget is spent")
    assert event.tokens == expected(4)[1:]
    assert done.tokens == expected(4)
    assert done.text == "".join(LETTERS[token] for token in done.tokens)


def test_a_cancelled_text_holds_all_its_tokens() -> None:
    engine = Engine(TARGET, detokenizer=Letters)
    done = [engine.add(Request(PROMPT, Greedy(), Fixed(), 40, guides=[StopsAfter(20)])) for _ in range(2)]
    engine.step()
    engine.step()
    engine.cancel(done[0])
    engine.close()
    for completion in done:
        assert completion.finish_reason == "cancelled"
        assert completion.tokens == expected(len(completion.tokens)) != []
        assert completion.text == "".join(LETTERS[token] for token in completion.tokens)


def test_a_stream_brings_them_before_it_raises() -> None:
    model = Model(TARGET)
    brought: list[int] = []

    def read(pieces: Sequence[Any]) -> None:
        for piece in pieces:
            brought.extend(piece.tokens)

    for ahead in (0, 30):
        brought.clear()
        with pytest.raises(Enough):
            read(model.stream(PROMPT, guides=StopsAfter(7, ahead), max_new_tokens=20))
        assert brought == expected(7)


FATAL = 5
"""Behind this token the next guide fails."""


class FailsBehind:
    """Allows everything, or everything but the fatal token, and fails behind it."""

    name = "fails-behind"
    masks = True
    forkable = True

    def __init__(self, may_come: bool, last: int = -1) -> None:
        self.may_come = may_come
        self.last = last

    def start(self, request: Any) -> FailsBehind:
        return FailsBehind(self.may_come)

    def fork(self) -> FailsBehind:
        return FailsBehind(self.may_come, self.last)

    def adjust(self, logits: Any, view: Any) -> Any:
        if self.last == FATAL:
            raise Enough("nothing may follow")
        if not self.may_come:
            logits[FATAL] = -float("inf")
        return logits

    def advance(self, token: int) -> None:
        self.last = token


@pytest.mark.parametrize("verifier", [Block(), Typical()], ids=["block", "typical"])
@pytest.mark.parametrize("allowed", [True, False])
def test_a_draft_that_is_not_kept_fails_nobody(verifier: Any, allowed: bool) -> None:
    """Rules that judge a draft as a whole ask guides about tokens that may yet be refused."""
    drafter = DraftModel(ToyTarget(vocab_size=12, memory=2, sharpness=1.0, seed=4), depth=4, samples=1)
    engine = Engine(TARGET)
    seen = 0
    for seed in range(40):
        sampling = Sampling(temperature=1.0, seed=seed)
        done = engine.add(Request(PROMPT, verifier, Fixed(), 12, sampling, drafter, [FailsBehind(allowed)]))
        for _ in engine.run():
            pass
        failed = done.finish_reason == "error"
        assert failed == (FATAL in done.tokens[:11])
        if failed:
            assert done.tokens.index(FATAL) == len(done.tokens) - 1
            seen += 1
    assert (seen > 0) == allowed


class FailsWhenAsked(FailsBehind):
    """Fails behind the fatal token at one question, asked before anything is verified.

    Args:
        question: Name of the method that raises.
    """

    def __init__(self, question: str, last: int = -1) -> None:
        super().__init__(True, last)
        self.question = question

    def start(self, request: Any) -> FailsWhenAsked:
        return FailsWhenAsked(self.question)

    def _asked(self, question: str) -> None:
        if question == self.question and self.last == FATAL:
            raise Enough(f"{question} failed")

    def adjust(self, logits: Any, view: Any) -> Any:
        return logits

    def fork(self) -> FailsWhenAsked:
        self._asked("fork")
        return FailsWhenAsked(self.question, self.last)

    def allowed(self, width: int) -> np.ndarray:
        return np.ones(width, np.bool_)

    def following(self, tokens: Sequence[int]) -> tuple[list[int], bool]:
        return [*tokens], False

    def forced(self) -> list[int]:
        self._asked("forced")
        return []

    def prune(self, tree: TokenTree) -> list[int]:
        self._asked("prune")
        return [*range(len(tree))]

    def needs(self, tree: TokenTree) -> Needs:
        self._asked("needs")
        return Needs()


@pytest.mark.parametrize("question", ["forced", "fork", "prune", "needs"])
def test_a_guide_that_fails_when_asked_ends_its_own_request_alone(question: str) -> None:
    drafter = DraftModel(ToyTarget(vocab_size=12, memory=2, sharpness=1.0, seed=4), depth=4, samples=0)
    assert drafter.guided

    def request(seed: int, guides: list[Any]) -> Request:
        sampling = Sampling(temperature=1.0, seed=seed)
        return Request(PROMPT, Coupled(), Fixed(), 12, sampling, drafter, guides)

    failures = 0
    for seed in range(12):
        alone = Engine(TARGET)
        plain = alone.add(request(seed, []))
        list(alone.run())
        engine = Engine(TARGET, max_batch=2)
        failing, beside = engine.add(request(seed, [FailsWhenAsked(question)])), engine.add(request(seed, []))
        list(engine.run())
        assert (beside.tokens, beside.error) == (plain.tokens, None)
        assert failing.tokens == plain.tokens[: len(failing.tokens)]
        if failing.error is not None:
            assert failing.error == f"{question} failed"
            assert failing.tokens[-1] == FATAL
            failures += 1
    assert failures > 2
