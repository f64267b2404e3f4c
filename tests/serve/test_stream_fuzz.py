"""Whatever a text is made of and however it is cut, its events are well-formed and join to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serve.running import Running, chat_body, read_events
from ventris.engine.request import Completion, TokenLogprob
from ventris.serve.answers import ChatAnswer, TextAnswer, TokenTexts
from ventris.serve.event_stream import DONE, EventStream, event
from ventris.serve.job import Update
from ventris.serve.mailbox import Mailbox

TEXTS = TokenTexts(None, frozenset([0]), frozenset([0]))
PIECES = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=12)


@given(PIECES, st.floats(), st.booleans())
def test_events_join_to_the_text(pieces: list[str], logprob: float, chat: bool) -> None:
    kind = ChatAnswer if chat else TextAnswer
    answer = kind("tiny", TEXTS, "f", traced=False)
    completion = Completion([1], text="".join(pieces), finish_reason="stop", logprobs=[])
    body = b"".join(map(event, answer.opening(1)))
    for place, piece in enumerate(pieces):
        scored = [TokenLogprob(place + 1, logprob, [(place + 1, logprob)])]
        update = Update(0, completion, piece, [place + 1], ["target"], scored)
        body += answer.encoded(update) or b""
    body += (answer.encoded(Update(0, completion, finished=True)) or b"") + DONE
    events = read_events(body)
    choices = [chunk["choices"][0] for chunk in events]
    if chat:
        assert "".join(choice["delta"].get("content", "") for choice in choices) == completion.text
    else:
        assert "".join(choice["text"] for choice in choices) == completion.text
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]


@given(PIECES, st.booleans(), st.integers(0, 2))
def test_a_plain_piece_is_encoded_as_any_other(pieces: list[str], chat: bool, index: int) -> None:
    answer = (ChatAnswer if chat else TextAnswer)("tiny", TEXTS, "f", traced=False)
    completion = Completion([1])
    for piece in [*pieces, "\ufdd0", '"\ufdd0"', "content"]:
        update = Update(index, completion, piece, [3], ["target"])
        chunk = answer.chunk(update)
        assert answer.encoded(update) == (None if chunk is None else event(chunk))


@given(
    st.recursive(
        st.none() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_an_event_is_one_line(value: object) -> None:
    try:
        data = event(value)
    except orjson.JSONEncodeError:
        # Lone surrogates; no text of the engine holds any.
        return
    assert data.startswith(b"data: ")
    assert data.count(b"\n") == 2
    assert data.endswith(b"\n\n")


@settings(max_examples=30)
@given(st.lists(st.binary(min_size=1, max_size=20), max_size=10), st.integers(0, 10))
def test_a_stream_tells_when_its_client_leaves(chunks: list[bytes], leaves_after: int) -> None:
    sent: list[bytes] = []
    left: list[bool] = []

    async def events() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def run() -> None:
        async def receive() -> dict[str, str]:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict) -> None:
            if len(sent) > leaves_after:
                raise OSError("gone")
            sent.append(message.get("body", b""))

        await EventStream(events(), lambda: left.append(True), 1.0)({"type": "http"}, receive, send)

    asyncio.run(run())
    assert left
    assert b"".join(sent) == b"".join(chunks[: max(len(sent) - 1, 0)])


def test_a_mailbox_loses_nothing_and_bounds_what_it_holds() -> None:
    async def run() -> None:
        mailbox = Mailbox(backlog=10)
        completion = Completion([1])
        for n in range(12):
            mailbox.put(Update(n, completion, tokens=[n]))
        assert mailbox.overfull
        assert [update.index for update in await mailbox.take()] == list(range(12))
        assert not mailbox.overfull
        await asyncio.to_thread(mailbox.put, Update(99, completion))
        assert [update.index for update in await mailbox.take()] == [99]

    asyncio.run(run())


def test_news_wait_for_the_pause_but_not_first_and_last_ones() -> None:
    async def run() -> None:
        mailbox = Mailbox(backlog=10, pause=1e6)
        completion = Completion([1])

        async def taken() -> str:
            return "".join(update.text for update in await mailbox.take())

        async def waits(reader: asyncio.Task[str]) -> bool:
            for _ in range(20):
                await asyncio.sleep(0)
            return not reader.done()

        await asyncio.to_thread(mailbox.put, Update(0, completion, "a"))
        assert await taken() == "a"
        reader = asyncio.create_task(taken())
        for text in "bc":
            await asyncio.to_thread(mailbox.put, Update(0, completion, text))
            assert await waits(reader)
        mailbox._look()  # the pause is over
        assert await reader == "bc"
        # Nothing comes during the next one: what comes behind it need not wait.
        mailbox._look()
        await asyncio.to_thread(mailbox.put, Update(0, completion, "d"))
        assert await taken() == "d"
        await asyncio.to_thread(mailbox.put, Update(0, completion, "e"))
        await asyncio.to_thread(mailbox.put, Update(0, completion, "!", finished=True))
        assert await taken() == "e!"

    asyncio.run(run())


@settings(max_examples=25)
@given(
    text=st.text(st.characters(codec="ascii", min_codepoint=32, max_codepoint=126), min_size=1, max_size=30),
    stop=st.lists(st.text("abcxyz0189{}", min_size=1, max_size=2), max_size=3),
    temperature=st.sampled_from([0, 0.7, 1e-9, 2]),
    seed=st.integers(-(2**62), 2**62),
    n=st.integers(1, 3),
    draft=st.sampled_from(["none", "ngram", "ngram:width=1"]),
)
def test_a_stream_is_the_whole_answer_in_pieces(
    server: Running, text: str, stop: list[str], temperature: float, seed: int, n: int, draft: str
) -> None:
    fields = {"stop": stop, "temperature": temperature, "seed": seed, "n": n, "max_tokens": 12}
    own = {"draft": draft, "policy": "fixed", "verifier": "coupled"}
    whole = server.chat(text, ventris=own, **fields)
    assert whole.status == 200, whole.body
    streamed = server.ask("POST", "/v1/chat/completions", chat_body(text, ventris=own, stream=True, **fields))
    texts = [""] * n
    for piece in streamed.events:
        choice = piece["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == [choice["message"]["content"] for choice in whole.json["choices"]]
