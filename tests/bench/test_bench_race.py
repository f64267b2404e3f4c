from __future__ import annotations

from collections.abc import Sequence

import pytest

from ventris.bench import Question
from ventris.bench.clock import Clock
from ventris.bench.contestant import Decoded, Kind, Limits
from ventris.bench.race import Race, asker, first_difference
from ventris.bench.schedule import rotated
from ventris.engine.errors import VentrisError

LIMITS = Limits(4, frozenset())


class Puppet:
    """Answers what it was told to, and writes down when it was asked."""

    def __init__(
        self, name: str, answer: Sequence[int], said: list[str], kind: Kind = "method", broken: bool = False
    ) -> None:
        self.name, self.kind, self.twin = name, kind, "plain"
        self.answer, self.said, self.broken = list(answer), said, broken
        self.gap: tuple[float, float] | None = None

    def decode(self, prompt: Sequence[int], limits: Limits) -> Decoded:
        self.said.append(self.name)
        if self.broken:
            raise VentrisError("no\nway") if self.kind == "method" else RuntimeError("no\nway")
        clock = Clock()
        for _ in self.answer:
            clock.arrived(1)
        return Decoded(list(self.answer), clock, "length")

    def logit_gap(self, prefix: Sequence[int], tokens: tuple[int, int]) -> tuple[float, float] | None:
        return self.gap


def question(name: str, tokens: Sequence[int] = (1, 2)) -> Question:
    return Question(name, "c", tokens=tuple(tokens))


def test_rotation_gives_everybody_every_place() -> None:
    orders = [rotated("abc", turn) for turn in range(3)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]
    assert rotated([], 3) == []


def test_contestants_take_turns_on_every_prompt() -> None:
    said: list[str] = []
    race = Race([Puppet("plain", [1], said), Puppet("b", [1], said)], asker(None), LIMITS, 100)
    runs = race.run([question("x"), question("y")], repeats=2)
    assert said == ["plain", "b", "b", "plain", "b", "plain", "plain", "b"]
    assert [run.place for run in runs if run.contestant == "b"] == [1, 0, 0, 1]
    assert [(run.question, run.repeat) for run in runs[:4]] == [("x", 0), ("x", 0), ("x", 1), ("x", 1)]


def test_progress_counts_every_run() -> None:
    told: list[tuple[int, int]] = []
    race = Race(
        [Puppet("plain", [1], [])],
        asker(None),
        LIMITS,
        100,
        lambda what, done, total: told.append((done, total)),
    )
    race.run([question("x"), question("y")], repeats=2)
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_outputs_are_compared_with_the_twins() -> None:
    same, other, close = Puppet("same", [1, 2], []), Puppet("other", [1, 3], []), Puppet("close", [1, 3], [])
    other.gap, close.gap = (1.0, 0.1), (0.05, 0.1)
    race = Race([Puppet("plain", [1, 2], []), same, other, close], asker(None), LIMITS, 100)
    runs = {run.contestant: run for run in race.run([question("x")], 1)}
    assert runs["plain"].same is None
    assert runs["same"].same
    assert runs["other"].same is False
    difference, tie = runs["other"].difference, runs["close"].difference
    assert difference is not None
    assert (difference.position, difference.gap, difference.near_tie) == (1, 1.0, False)
    assert tie is not None
    assert tie.near_tie


@pytest.mark.parametrize(
    ("first", "second", "place"),
    [([1, 2], [1, 2], None), ([1, 2], [1, 3], 1), ([1, 2], [1], 1), ([], [], None)],
)
def test_first_difference(first: list[int], second: list[int], place: int | None) -> None:
    assert first_difference(first, second) == place


def test_a_failing_peer_leaves_and_the_others_go_on() -> None:
    said: list[str] = []
    peer = Puppet("peer", [1], said, "peer", broken=True)
    race = Race([Puppet("plain", [1], said), peer], asker(None), LIMITS, 100)
    runs = race.run([question("x"), question("y")], 1)
    assert race.failed == {"peer": "failed: RuntimeError: no way"}
    assert [run.contestant for run in runs] == ["plain", "plain"]
    assert said.count("peer") == 1


def test_our_own_failure_ends_the_race() -> None:
    race = Race([Puppet("plain", [1], [], broken=True)], asker(None), LIMITS, 100)
    with pytest.raises(VentrisError):
        race.run([question("x")], 1)


def test_a_prompt_that_does_not_fit_is_left_out_and_said() -> None:
    race = Race([Puppet("plain", [1], [])], asker(None), LIMITS, 10)
    runs = race.run([question("long", [1] * 9), question("short")], 2)
    assert {run.question for run in runs} == {"short"}
    assert len(race.warnings) == 1
    assert "long" in race.warnings[0]


def test_decode_time_begins_with_the_first_arrival() -> None:
    clock = Clock()
    assert (clock.decode_tokens, clock.decode_seconds) == (0, 0.0)
    clock.arrived(2)
    assert clock.decode_tokens == 0
    assert clock.first_seconds > 0
    clock.arrived(3)
    assert (clock.count, clock.decode_tokens) == (5, 3)
    assert clock.decode_seconds > 0
