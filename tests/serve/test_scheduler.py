"""The scheduler on a toy, without HTTP: turns, limits, cancellation, deadlines, failures."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from time import monotonic

import pytest

from tests.serve.running import wait_until
from ventris.engine.batch import Engine
from ventris.engine.errors import BadInput
from ventris.engine.ledger import MemoryLedger
from ventris.engine.request import Completion
from ventris.model import Model
from ventris.serve.errors import ApiError
from ventris.serve.fair_queue import FairQueue
from ventris.serve.job import Job, Update
from ventris.serve.scheduler import Scheduler
from ventris.testing.toy import ToyTarget

MODEL = Model(ToyTarget(vocab_size=12, memory=2, sharpness=5.0))


class Client:
    """Collects the news of a job."""

    def __init__(self, *prompts: list[int], key: str = "", seconds: float | None = None, **settings) -> None:
        requests = [MODEL.request(prompt, **{"max_new_tokens": 10, **settings}) for prompt in prompts]
        deadline = None if seconds is None else monotonic() + seconds
        self.updates: list[Update] = []
        self.job = Job(requests, self.updates.append, key, deadline)

    @property
    def ends(self) -> list[Update]:
        return [update for update in self.updates if update.finished]

    @property
    def done(self) -> bool:
        return len(self.ends) == len(self.job.requests)

    def tokens(self, index: int = 0) -> list[int]:
        return [token for update in self.updates if update.index == index for token in update.tokens]


class Gate:
    """An engine whose steps can be held up."""

    def __init__(self, **settings) -> None:
        self.open = Event()
        self.open.set()
        self.settings = settings
        self.broken = False

    def __call__(self) -> Engine:
        engine = MODEL.engine(**self.settings)
        step = engine.step

        def gated():
            self.open.wait(60)
            if self.broken:
                self.broken = False
                raise AssertionError("a bug")
            return step()

        engine.step = gated  # type: ignore[method-assign]
        return engine


@pytest.fixture
def gate() -> Gate:
    return Gate(max_batch=2)


@pytest.fixture
def scheduler(gate: Gate) -> Iterator[Scheduler]:
    made = Scheduler(gate, max_queue=6, max_open=4)
    made.start()
    yield made
    gate.open.set()
    made.close()
    assert made._engine.ledger.total == 0


def test_answers_are_those_of_each_request_alone(scheduler: Scheduler) -> None:
    clients = [Client([n, 2, 3], key=str(n), draft="ngram" if n % 2 else None) for n in range(8)]
    for client in clients:
        scheduler.submit(client.job)
    wait_until(lambda: all(client.done for client in clients))
    for n, client in enumerate(clients):
        assert client.tokens() == MODEL.generate([n, 2, 3], max_new_tokens=10).tokens
        assert client.ends[0].completion.finish_reason == "length"
    assert scheduler.idle


def test_several_answers_of_one_job_are_told_apart(scheduler: Scheduler) -> None:
    client = Client([1], [2], [3])
    scheduler.submit(client.job)
    wait_until(lambda: client.done)
    for index in range(3):
        assert client.tokens(index) == MODEL.generate([index + 1], max_new_tokens=10).tokens


def test_keys_take_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for name in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.put(name[0], name)
    assert [queue.take() for _ in range(4)] == ["a1", "b1", "c1", "a2"]
    assert queue.remove(lambda item: item == "c2") == ["c2"]
    queue.put("b", "b2")
    assert [queue.take(), queue.take()] == ["a3", "b2"]
    assert len(queue) == 0
    with pytest.raises(IndexError):
        queue.take()


def test_a_newcomer_goes_before_the_rest_of_a_long_line(scheduler: Scheduler, gate: Gate) -> None:
    gate.open.clear()
    first = Client([1], [2], [3], [4], key="greedy", max_new_tokens=200)
    other = Client([5], key="modest", max_new_tokens=2)
    scheduler.submit(first.job)
    scheduler.submit(other.job)
    gate.open.set()
    wait_until(lambda: other.done and first.done)
    # At most two of the first client's answers were running; the newcomer went before the other two.
    started = sorted(first.job.first_token.values())
    assert other.job.first_token[0] < started[2]


def test_limits_on_what_is_open(scheduler: Scheduler, gate: Gate) -> None:
    gate.open.clear()
    clients = [Client([1], [2], [3], [4], key=key) for key in ("a", "b")]
    for client in clients:
        scheduler.submit(client.job)
    with pytest.raises(ApiError) as refused:
        scheduler.submit(Client([1], key="a").job)
    assert (refused.value.status, refused.value.code) == (429, "too_many_streams")
    with pytest.raises(ApiError) as refused:
        scheduler.submit(Client([1], [2], [3], key="c").job)
    assert (refused.value.status, refused.value.code) == (503, "queue_full")
    gate.open.set()
    wait_until(lambda: all(client.done for client in clients))
    late = Client([1], key="a")
    scheduler.submit(late.job)
    wait_until(lambda: late.done)


def test_cancelling_gives_memory_back_before_the_next_step(scheduler: Scheduler, gate: Gate) -> None:
    client, other = Client([1], max_new_tokens=4000), Client([2], max_new_tokens=4000)
    held: list[int] = []

    def tell(update: Update) -> None:
        client.updates.append(update)
        held.append(scheduler._engine.ledger.total)

    client.job.tell = tell
    scheduler.submit(client.job)
    scheduler.submit(other.job)
    wait_until(lambda: bool(client.updates and other.updates))
    gate.open.clear()
    seen = len(client.updates)
    scheduler.cancel(client.job)
    gate.open.set()
    wait_until(lambda: client.done)
    assert client.ends[0].completion.finish_reason == "cancelled"
    assert isinstance(client.ends[0].error, ApiError)
    # Steps that were under way when it was cancelled are the last ones it took part in.
    assert len(client.updates) <= seen + 3
    # Both caches have the same size.
    assert held[-1] * 2 == held[-2]
    scheduler.cancel(other.job)
    wait_until(lambda: scheduler.idle)
    scheduler.cancel(other.job)


def test_a_job_may_be_cancelled_before_it_begins(scheduler: Scheduler, gate: Gate) -> None:
    gate.open.clear()
    running = Client([1], [2])
    waiting = Client([3])
    scheduler.submit(running.job)
    scheduler.submit(waiting.job)
    scheduler.cancel(waiting.job)
    gate.open.set()
    wait_until(lambda: waiting.done and running.done)
    assert not waiting.tokens()
    assert running.ends[0].error is None


def test_a_deadline_ends_running_and_waiting_answers(scheduler: Scheduler) -> None:
    late = [Client([n], seconds=0.0, key=str(n), max_new_tokens=4000) for n in range(4)]
    for client in late:
        scheduler.submit(client.job)
    wait_until(lambda: all(client.done for client in late))
    errors = [client.ends[0].error for client in late]
    assert all(isinstance(error, ApiError) and error.code == "deadline_exceeded" for error in errors)
    in_time = Client([1], seconds=3600)
    scheduler.submit(in_time.job)
    wait_until(lambda: in_time.done)
    assert in_time.ends[0].error is None


def test_a_bug_in_the_engine_ends_its_answers_and_nothing_else(scheduler: Scheduler, gate: Gate) -> None:
    gate.open.clear()
    lost = Client([1], [2], [3])
    scheduler.submit(lost.job)
    gate.broken = True
    gate.open.set()
    wait_until(lambda: lost.done)
    assert all(isinstance(end.error, AssertionError) for end in lost.ends)
    after = Client([1])
    scheduler.submit(after.job)
    wait_until(lambda: after.done)
    assert after.tokens() == MODEL.generate([1], max_new_tokens=10).tokens


def test_answers_that_do_not_fit_together_wait_for_each_other() -> None:
    row = MODEL.target.new_cache(1).layout.row_bytes
    gate = Gate(max_batch=8, ledger=MemoryLedger(300 * row))
    scheduler = Scheduler(gate)
    scheduler.start()
    clients = [Client([n], max_new_tokens=100, key=str(n)) for n in range(4)]
    for client in clients:
        scheduler.submit(client.job)
    wait_until(lambda: all(client.done for client in clients))
    for n, client in enumerate(clients):
        assert client.tokens() == MODEL.generate([n], max_new_tokens=100).tokens
    assert scheduler._engine.ledger.peak <= 300 * row
    with pytest.raises(ApiError) as refused:
        scheduler.check(MODEL.request([1], max_new_tokens=1000))
    assert (refused.value.status, refused.value.param) == (400, "max_tokens")
    scheduler.close()


def test_closing_ends_everything_with_an_error(gate: Gate) -> None:
    scheduler = Scheduler(gate)
    scheduler.start()
    client = Client([1], [2], [3], max_new_tokens=4000)
    scheduler.submit(client.job)
    wait_until(lambda: bool(client.updates))
    scheduler.drain()
    with pytest.raises(ApiError) as refused:
        scheduler.submit(Client([4]).job)
    assert (refused.value.status, refused.value.code) == (503, "shutting_down")
    scheduler.close()
    assert client.done
    assert all(getattr(end.error, "code", None) == "shutting_down" for end in client.ends)
    assert scheduler._engine.ledger.total == 0


def test_what_happens_is_observed(gate: Gate) -> None:
    class Notes:
        def __init__(self) -> None:
            self.tokens = 0
            self.ended: list[Completion] = []

        def stepped(self, deciding: int, tokens: int, seconds: float) -> None:
            assert deciding >= 1
            self.tokens += tokens

        def finished(self, job: Job, index: int, completion: Completion, now: float) -> None:
            self.ended.append(completion)

    scheduler = Scheduler(gate)
    scheduler.observer = notes = Notes()
    scheduler.start()
    client = Client([1], [2])
    scheduler.submit(client.job)
    wait_until(lambda: client.done)
    scheduler.close()
    assert notes.tokens == 20
    assert len(notes.ended) == 2
    assert scheduler.snapshot().tokens_per_second == 2.0


def test_what_cannot_be_served_is_refused_at_once(scheduler: Scheduler) -> None:
    with pytest.raises(BadInput, match="outside the vocabulary"):
        scheduler.check(MODEL.request([99]))


def test_a_step_that_does_not_end_keeps_nobody_waiting(scheduler: Scheduler, gate: Gate) -> None:
    client = Client([1, 2, 3], [4, 5, 6], [7, 8, 9])

    def tell(update: Update) -> None:
        # On the scheduler's thread, so that the very next step is the one that does not end.
        gate.open.clear()
        client.updates.append(update)

    client.job.tell = tell
    scheduler.submit(client.job)
    wait_until(lambda: bool(client.updates))
    scheduler.close(0.01)
    assert client.done
    assert {end.error.code for end in client.ends} == {"shutting_down"}  # type: ignore[union-attr]
    told = len(client.updates)
    gate.open.set()
    scheduler._thread.join(30)
    assert not scheduler._thread.is_alive()
    assert scheduler._engine.ledger.total == 0
    # The step that ended after all is nobody's business any more.
    assert len(client.updates) == told
