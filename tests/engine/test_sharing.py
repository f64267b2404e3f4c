"""What requests of one engine share, and what one of them cannot do to the others."""

from __future__ import annotations

import pytest

from ventris.engine.batch import Engine
from ventris.engine.errors import BadInput
from ventris.model import Model
from ventris.testing.toy import ToyTarget

TARGET = ToyTarget(vocab_size=12, memory=2, sharpness=5.0)
MODEL = Model(TARGET)


class Faulty:
    """A guide that breaks with an error of its own making when so many tokens are there."""

    name, masks = "faulty", False

    def __init__(self, after: int) -> None:
        self.after = after

    def start(self, request):
        if self.after < 0:
            raise LookupError("no state")
        return FaultyState(self.after)


class FaultyState:
    def __init__(self, after: int) -> None:
        self.left = after

    def adjust(self, logits, view):
        if not self.left:
            raise ArithmeticError("broken guide")
        return logits

    def advance(self, token):
        self.left -= 1


class Slow:
    """A guide whose verdict is asked for, and counted."""

    name, masks = "slow", False

    def __init__(self) -> None:
        self.asked = 0

    def start(self, request):
        return SlowState(self)


class SlowState:
    def __init__(self, guide: Slow) -> None:
        self.guide = guide

    def adjust(self, logits, view):
        return logits

    def advance(self, token):
        """Nothing to remember."""

    @property
    def valid(self) -> bool:
        self.guide.asked += 1
        return True


def finish(engine: Engine) -> None:
    for _ in engine.run():
        pass


@pytest.mark.parametrize("after", [-1, 0, 4])
def test_a_guide_that_breaks_takes_nobody_with_it(after: int) -> None:
    engine = MODEL.engine()
    broken = engine.add(MODEL.request([1, 2], max_new_tokens=20, guides=[Faulty(after)]))
    other = engine.add(MODEL.request([3, 4], max_new_tokens=20))
    finish(engine)
    assert broken.finish_reason == "error"
    assert len(broken.tokens) == max(after, 0)
    assert other.tokens == MODEL.generate([3, 4], max_new_tokens=20).tokens
    assert engine.ledger.total == 0


def test_a_verdict_is_found_when_it_is_asked_for() -> None:
    guide = Slow()
    completion = MODEL.generate([1, 2], max_new_tokens=5, guides=[guide])
    assert guide.asked == 0
    assert completion.valid is True
    assert completion.valid is True
    assert guide.asked == 1


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    engine = MODEL.engine(chunk=16)
    long = engine.add(MODEL.request([1, 2, 3, 4] * 100, max_new_tokens=4, seed=1))
    engine.step()
    short = engine.add(MODEL.request([5, 6, 7, 8, 9, 10], max_new_tokens=4))
    steps = 0
    while not short.tokens:
        engine.step()
        steps += 1
    assert steps <= 2
    assert not long.tokens
    finish(engine)
    assert long.tokens == MODEL.generate([1, 2, 3, 4] * 100, max_new_tokens=4).tokens


def test_a_step_reads_no_more_than_the_chunk() -> None:
    engine = MODEL.engine(chunk=16)
    fed: list[int] = []
    forward = TARGET.forward

    class Counting(ToyTarget):
        def forward(self, batch, taps=()):
            fed.append(sum(len(rows.tokens) for rows in batch))
            return forward(batch, taps)

    engine.target = Counting(vocab_size=12, memory=2, sharpness=5.0)
    for first in range(4):
        engine.add(MODEL.request([first, 2, 3, 4] * 20, max_new_tokens=10))
    finish(engine)
    # One root for each request that decodes, and the chunk.
    assert max(fed) <= 16 + 4


def test_prefixes_are_shared_within_a_scope_only() -> None:
    engine = MODEL.engine(prefix_bytes=1 << 20)
    prompt = [1, 2, 3, 4] * 10

    def reused(scope: str) -> int:
        request = MODEL.request(prompt, max_new_tokens=4)
        request.prefix_scope = scope
        completion = engine.add(request)
        finish(engine)
        return completion.stats.reused_tokens

    assert reused("one") == 0
    assert reused("two") == 0
    assert reused("one") == len(prompt) - 1
    engine.close()
    assert engine.ledger.total == 0


@pytest.mark.parametrize("temperature", [1e-3, 1e-12, 1e-45, 1e-60])
def test_it_may_be_as_cold_as_one_likes(temperature: float) -> None:
    cold = MODEL.generate([1, 2], max_new_tokens=20, temperature=temperature)
    assert cold.finish_reason == "length"
    assert cold.tokens == MODEL.generate([1, 2], max_new_tokens=20).tokens


def test_a_bias_on_no_token_is_refused_before_anything_is_queued() -> None:
    engine = MODEL.engine()
    with pytest.raises(BadInput, match="outside the vocabulary"):
        engine.add(MODEL.request([1], logit_bias={99: 1.0}))
    assert not engine.busy
