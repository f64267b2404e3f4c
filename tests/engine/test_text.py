"""Stop strings never show, wherever the pieces break."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ventris.engine.text import StopMatcher

texts = st.text(alphabet="ab.", max_size=30)


@given(texts, st.lists(st.text(alphabet="ab.", min_size=1, max_size=4), min_size=1, max_size=3), st.data())
def test_any_split_gives_the_text_before_the_first_stop(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    matcher = StopMatcher(stops)
    shown, rest = "", text
    while rest and not matcher.stopped:
        size = data.draw(st.integers(1, len(rest)))
        shown += matcher.push(rest[:size])
        # What is shown can never be taken back.
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
        rest = rest[size:]
    if not matcher.stopped:
        shown += matcher.flush()
    # The stop that completes first counts, and of those the one that begins first.
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert shown == text
        assert not matcher.stopped
    else:
        assert matcher.stopped
        assert any(text.startswith(shown + stop) for stop in stops)


def test_without_stops_nothing_is_held_back() -> None:
    matcher = StopMatcher([])
    assert matcher.push("abc") == "abc"
    assert matcher.flush() == ""
