"""The race: every question decoded by all contestants in turn, in one process."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ventris.bench.contestant import Contestant, Decoded, Limits
from ventris.bench.conversation import Ask, Conversation
from ventris.bench.memory import PeakMemory
from ventris.bench.question import Question
from ventris.bench.record import Difference, Run
from ventris.bench.schedule import rotated

if TYPE_CHECKING:
    from ventris.models.tokenizer import Tokenizer

logger = logging.getLogger("ventris")

Progress = Callable[[str, int, int], None]
"""Told what is running, how much is done, and how much there is."""

SETTLE_SECONDS = 0.02
"""Pause before a run. Idle threads of the runtime before it spin for a while and would slow this one down."""


class Race:
    """Runs contestants against each other.

    A peer that fails leaves the race with the reason; a failure of our own ends it.

    Args:
        contestants: In the order of the tables.
        ask: Makes the conversation for a question.
        limits: When outputs end.
        context_length: Prompt and output tokens together, at most.
        progress: Told about every run.

    Attributes:
        runs: What happened so far.
        failed: Peers that dropped out, with the reason.
        warnings: Questions that had to be left out.
    """

    def __init__(
        self,
        contestants: Sequence[Contestant],
        ask: Ask,
        limits: Limits,
        context_length: int,
        progress: Progress | None = None,
    ) -> None:
        self.contestants = list(contestants)
        self.ask = ask
        self.limits = limits
        self.context_length = context_length
        self.progress = progress
        self.runs: list[Run] = []
        self.failed: dict[str, str] = {}
        self.warnings: list[str] = []

    def run(self, questions: Sequence[Question], repeats: int) -> list[Run]:
        """Ask every question ``repeats`` times; the order rotates with every round."""
        total = sum(question.rounds for question in questions) * repeats * len(self.contestants)
        done = 0
        for index, question in enumerate(questions):
            for repeat in range(repeats):
                self._question(question, repeat, index + repeat, done, total)
                done += question.rounds * len(self.contestants)
        if self.progress:
            self.progress("done", total, total)
        return self.runs

    def warm_up(self, prompt: Sequence[int], tokens: int = 8) -> None:
        """Let everybody decode a few tokens uncounted: caches fill, kernels compile, threads start."""
        limits = Limits(tokens, frozenset())
        for contestant in list(self.contestants):
            self._decode(contestant, prompt, limits)

    def _question(self, question: Question, repeat: int, rotation: int, done: int, total: int) -> None:
        talks = {contestant.name: self.ask(question) for contestant in self.contestants}
        for turn in range(question.rounds):
            answers: dict[str, tuple[Run, Decoded, list[int]]] = {}
            for place, contestant in enumerate(rotated(self.contestants, rotation)):
                name = contestant.name
                if self.progress:
                    self.progress(f"{question.category} {question.id}: {name}", done, total)
                done += 1
                prompt = talks[name].prompt(turn)
                room = self.context_length - len(prompt)
                if room < 2:
                    self._leave_out(question, turn, len(prompt))
                    return
                limits = Limits(min(self.limits.max_new_tokens, room), self.limits.end_ids)
                memory = PeakMemory()
                decoded = self._decode(contestant, prompt, limits)
                if decoded is None:
                    continue
                growth = memory.growth()
                talks[name].answered(turn, decoded.tokens)
                run = _run(question, turn, repeat, place, name, prompt, decoded, growth)
                answers[name] = run, decoded, prompt
            for contestant in self.contestants:
                self._compare(contestant, answers)
            self.runs += [run for run, _, _ in answers.values()]

    def _decode(self, contestant: Contestant, prompt: Sequence[int], limits: Limits) -> Decoded | None:
        time.sleep(SETTLE_SECONDS)
        if contestant.kind == "method":
            return contestant.decode(prompt, limits)
        try:
            return contestant.decode(prompt, limits)
        except Exception as error:  # whatever another toolkit raises, the other rows stand
            reason = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            logger.warning("peer %s %s", contestant.name, reason)
            self.failed[contestant.name] = reason
            self.contestants = [other for other in self.contestants if other is not contestant]
            return None

    def _leave_out(self, question: Question, turn: int, tokens: int) -> None:
        warning = (
            f"question {question.id} was left out from turn {turn + 1} on: its prompt of {tokens} tokens "
            f"leaves no room in the context of {self.context_length}"
        )
        if warning not in self.warnings:
            self.warnings.append(warning)

    @staticmethod
    def _compare(contestant: Contestant, answers: dict[str, tuple[Run, Decoded, list[int]]]) -> None:
        """Note whether a contestant repeated its twin's output, and where not, how close the call was."""
        if contestant.name == contestant.twin or contestant.name not in answers:
            return
        if contestant.twin not in answers:
            return
        run, decoded, prompt = answers[contestant.name]
        _, expected, asked = answers[contestant.twin]
        if prompt != asked:
            # After different answers the next turn's prompts differ; that was counted already.
            return
        position = first_difference(expected.tokens, decoded.tokens)
        run.same = position is None
        if position is None:
            return
        run.difference = Difference(position=position)
        if position < min(len(expected.tokens), len(decoded.tokens)):
            rivals = expected.tokens[position], decoded.tokens[position]
            found = contestant.logit_gap([*prompt, *expected.tokens[:position]], rivals)
            if found is not None:
                gap, noise = found
                run.difference = Difference(position=position, gap=gap, near_tie=gap <= noise and noise > 0)


def first_difference(first: Sequence[int], second: Sequence[int]) -> int | None:
    """Index of the first token in which two outputs differ; ``None`` if they are equal."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return None if len(first) == len(second) else min(len(first), len(second))


def asker(tokenizer: Tokenizer | None) -> Ask:
    """Conversations with one tokenizer."""
    return lambda question: Conversation(question, tokenizer)


def _digest(tokens: Sequence[int]) -> str:
    return hashlib.sha256(",".join(map(str, tokens)).encode()).hexdigest()[:16]


def _run(
    question: Question,
    turn: int,
    repeat: int,
    place: int,
    name: str,
    prompt: Sequence[int],
    decoded: Decoded,
    growth: int | None,
) -> Run:
    clock = decoded.clock
    return Run(
        question=question.id,
        category=question.category,
        turn=turn,
        repeat=repeat,
        place=place,
        contestant=name,
        prompt_tokens=len(prompt),
        prompt_digest=_digest(prompt),
        output_digest=_digest(decoded.tokens),
        new_tokens=len(decoded.tokens),
        finish=decoded.finish,
        first_token_seconds=clock.first_seconds,
        decode_tokens=clock.decode_tokens,
        decode_seconds=clock.decode_seconds,
        passes=decoded.passes,
        decode_passes=decoded.decode_passes,
        drafted=decoded.drafted,
        accepted=decoded.accepted,
        proposed_by_depth=decoded.proposed_by_depth,
        accepted_by_depth=decoded.accepted_by_depth,
        parts=decoded.parts,
        peak_growth=growth,
    )
