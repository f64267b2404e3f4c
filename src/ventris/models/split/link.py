"""The first process's end of a split model: it asks the second one, one question after the other.

All traffic is in one thread, so that a caller who is interrupted leaves no question half asked and no answer
half read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from queue import SimpleQueue
from threading import Lock, Thread, current_thread
from typing import Any

from torch import Tensor

from ventris.engine.errors import BadInput, StageLost
from ventris.models.split.wire import Wire

_Question = tuple[dict[str, Any], Tensor, "Future[Tensor]"]

REFUSALS: dict[str, type[Exception]] = {"BadInput": BadInput, "MemoryError": MemoryError}
"""What the second process may refuse a pass with, and go on."""


class Link:
    """Questions to the second process.

    Args:
        wire: The connection.
        seconds: Longest wait for an answer.
        fate: Says what ended the second process, where this one can know.

    Attributes:
        numbers: Names for what both processes keep.
    """

    def __init__(self, wire: Wire, seconds: float, fate: Callable[[], str | None]) -> None:
        self.numbers = count()
        self._wire = wire
        self._seconds = seconds
        self._fate = fate
        self._commands: deque[tuple[Any, ...]] = deque()
        self._questions: SimpleQueue[_Question | None] = SimpleQueue()
        self._told_end = False
        self._open = True
        self._opening = Lock()
        self._thread = Thread(target=self._run, name="second stage", daemon=True)
        self._thread.start()

    def tell(self, *command: Any) -> None:
        """Have a command carried out before the next question; it travels with that."""
        self._commands.append(command)

    def ask(self, question: dict[str, Any], rows: Tensor) -> Tensor:
        """Ask for a pass over ``rows``, and wait for the rows that come back.

        Raises:
            BadInput, MemoryError: as the pass.
            StageLost: if the second process is gone, has failed, or takes too long; now and from then on.
        """
        answer: Future[Tensor] = Future()
        with self._opening:
            if not self._open:
                raise StageLost("the model has been closed; load it again")
            # Taken now: what is told after this, as by a caller who was interrupted and gives its cache
            # back, must not be carried out before this question.
            commands = [self._commands.popleft() for _ in range(len(self._commands))]
            self._questions.put(({"what": "pass", "commands": commands, **question}, rows, answer))
        return answer.result()

    def close(self, seconds: float) -> bool:
        """Tell the second process that this was all, and return whether it could be told.

        Args:
            seconds: Longest wait for a question that is still open.
        """
        with self._opening:
            self._open = False
            self._questions.put(None)
        if current_thread() is self._thread:
            return False  # a decoder is collected wherever memory happens to be asked for
        self._thread.join(seconds)
        return self._told_end

    def _run(self) -> None:
        lost: StageLost | None = None
        while (asked := self._questions.get()) is not None:
            question, rows, answer = asked
            try:
                if lost is not None:
                    raise lost
                answer.set_result(self._exchange(question, rows))
            except StageLost as error:
                lost = error
                answer.set_exception(error)
            except (BadInput, MemoryError) as refusal:
                answer.set_exception(refusal)
            except Exception as bug:
                # Nobody knows how much of the message has been read.
                lost = StageLost(f"the second stage was not understood: {type(bug).__name__}: {bug}")
                answer.set_exception(bug)
        if lost is None:
            try:
                self._wire.send({"what": "end"}, self._seconds)
            except StageLost:
                return  # it has ended before
            self._told_end = True

    def _exchange(self, question: dict[str, Any], rows: Tensor) -> Tensor:
        try:
            self._wire.send(question, self._seconds, rows)
            answer, back = self._wire.receive(self._seconds)
        except StageLost as error:
            raise StageLost(f"the second stage is lost: {self._fate() or error}") from None
        if (refused := answer.get("refused")) is not None:
            raise REFUSALS[refused](answer["because"])
        if "failed" in answer:
            raise StageLost(f"the second stage has failed: {answer['failed']}")
        assert back is not None
        return back
