"""When the learner learns, and how its weights come back: between rounds, never within one."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from typing import Literal, NamedTuple

from torch import Tensor

from ventris.draft.omnidraft.learner import Judged, Learner, Passage
from ventris.draft.omnidraft.memory import Memory
from ventris.draft.omnidraft.mergers import Mergers
from ventris.draft.omnidraft.network import LengthHead
from ventris.engine.errors import VentrisError
from ventris.engine.target import Target

logger = logging.getLogger("ventris")

Schedule = Literal["background", "between", "off"]
"""``background``: in a thread of its own. ``between``: at once, so that drafts can be repeated."""

MakeModel = Callable[[dict[str, Tensor]], Target]


class Learnt(NamedTuple):
    """What a lesson leads to: the draft model and its length head."""

    model: Target
    head: LengthHead


class Teaching:
    """Runs a learner beside decoding, saves what it learns, and hands out the models that come of it.

    A lesson that arrives while another one is being learnt in the background is left out: decoding is never
    made to wait, and nothing piles up.

    Args:
        mergers: Saved beside what the learner learns.
        schedule: See :data:`Schedule`.
        learner: ``None`` to learn mergers only.
        make_model: From weights to a model that drafts.
        memory: Where all is kept; ``None`` keeps nothing.

    Attributes:
        learner: ``None`` where nothing but mergers is learnt.
        head: The length head as it was in the beginning; ``None`` without a learner.
        steps: Steps of learning done.
    """

    def __init__(
        self,
        mergers: Mergers,
        schedule: Schedule = "off",
        learner: Learner | None = None,
        make_model: MakeModel | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.mergers = mergers
        self.learner = learner if schedule != "off" else None
        self.head = deepcopy(learner.network.length_head) if learner else None
        self.steps = 0
        self._network = learner.network if learner else None
        self._make_model = make_model
        self._memory = memory
        self._saved = len(mergers)
        self._lock = threading.Lock()
        self._pending: Future[Learnt | None] | None = None
        self._learnt: Learnt | None = None
        self._thread: ThreadPoolExecutor | None = None
        if schedule == "background":
            self._thread = ThreadPoolExecutor(1, "ventris-omnidraft", _step_aside)

    def give(self, passage: Passage, judged: Judged) -> None:
        """Let something be learnt, unless something else still is."""
        learner, make_model = self.learner, self._make_model
        if learner is None or make_model is None:
            return
        with self._lock:
            if self._idle():
                kept = self.mergers.tensors()
                self._pending = self._submit(lambda: self._learn(learner, make_model, passage, judged, kept))

    def take(self) -> Learnt | None:
        """What has come of the last lesson, if it is there and has not been taken yet."""
        with self._lock:
            self._idle()
            learnt, self._learnt = self._learnt, None
        return learnt

    def keep(self) -> None:
        """Save mergers that were learnt since they were last saved, beside what else there is."""
        with self._lock:
            if self._memory is not None and len(self.mergers) != self._saved and self._idle():
                kept = self.mergers.tensors()
                self._pending = self._submit(lambda: self._save(kept))

    def wait(self) -> None:
        """Until what is being learnt or saved is done."""
        if self._pending is not None:
            self._pending.exception()

    def _idle(self) -> bool:
        """Whether nothing is under way; what is done is put by."""
        if self._pending is None:
            return True
        if not self._pending.done():
            return False
        done, self._pending = self._pending, None
        try:
            self._learnt = done.result() or self._learnt
        except (VentrisError, OSError, MemoryError, RuntimeError) as error:
            logger.warning("learning from drafts has stopped, drafting goes on: %s", error)
            self.learner = None
        return True

    def _submit(self, work: Callable[[], Learnt | None]) -> Future[Learnt | None]:
        if self._thread is not None:
            return self._thread.submit(work)
        done: Future[Learnt | None] = Future()
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)
        return done

    def _learn(
        self,
        learner: Learner,
        make_model: MakeModel,
        passage: Passage,
        judged: Judged,
        kept: dict[str, Tensor],
    ) -> Learnt | None:
        weights = learner.learn(passage, judged)
        if weights is None:
            logger.warning("a step of learning led to numbers that are not finite; it was taken back")
            return None
        self.steps += 1
        self._save(kept)
        return Learnt(make_model(weights), deepcopy(learner.network.length_head))

    def _save(self, kept: dict[str, Tensor]) -> None:
        if self._memory is not None:
            network = self._network.learnt() if self._network is not None else {}
            self._memory.save({**kept, **network})
            self._saved = len(kept["mergers.tokens"])


def _step_aside() -> None:
    """Let everything else go first, where the system can say so of a single thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
