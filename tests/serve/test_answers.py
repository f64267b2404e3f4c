"""Answers over HTTP: the same as alone, whole or streamed, read by OpenAI's own client."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import OpenAI

from tests.serve.running import NAME, Running, chat_body
from ventris.model import Model

PROMPTS = [f"question {n} about {'x' * (7 * n)}" for n in range(10)]


@pytest.fixture(scope="module")
def client(server: Running) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="none needed", max_retries=0)


def alone(model: Model, text: str, **settings: Any) -> Any:
    """The same chat request run by the model itself."""
    messages = [{"role": "user", "content": text}]
    return model.generate(messages, **{"max_new_tokens": 8, **settings})


def ask(client: OpenAI, text: str, **fields: Any) -> Any:
    body = chat_body(text, **fields)
    own = body.pop("ventris", None)
    return client.chat.completions.create(**body, extra_body={"ventris": own} if own else None)


def test_a_chat_answer(client: OpenAI, model: Model) -> None:
    answer = ask(client, "hello")
    expected = alone(model, "hello")
    choice = answer.choices[0]
    assert choice.message.content == expected.text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == expected.finish_reason
    assert answer.object == "chat.completion"
    assert answer.model == NAME
    assert answer.usage.prompt_tokens == len(expected.prompt)
    assert answer.usage.completion_tokens == len(expected.tokens)
    assert answer.usage.total_tokens == len(expected.prompt) + len(expected.tokens)


def test_many_at_once_are_answered_as_if_alone(client: OpenAI, model: Model) -> None:
    def one(n: int) -> tuple[int, str, str]:
        fields: dict[str, Any] = {"max_tokens": 5 + 5 * n}
        if n % 2:
            fields["ventris"] = {"draft": "ngram"}
        if n % 3 == 0:
            pieces = ask(client, PROMPTS[n], stream=True, **fields)
            text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        else:
            text = ask(client, PROMPTS[n], **fields).choices[0].message.content
        return n, text, alone(model, PROMPTS[n], max_new_tokens=5 + 5 * n).text

    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        for n, text, expected in pool.map(one, range(len(PROMPTS))):
            assert text == expected, n


def test_the_deltas_of_a_stream_join_to_the_whole_text(client: OpenAI) -> None:
    for draft in ("none", "ngram"):
        own = {"draft": draft, "policy": "fixed"}
        whole = ask(client, "once upon a time " * 5, max_tokens=60, ventris=own)
        pieces = list(
            ask(
                client,
                "once upon a time " * 5,
                max_tokens=60,
                stream=True,
                stream_options={"include_usage": True},
                ventris=own,
            )
        )
        assert len({piece.id for piece in pieces}) == 1
        assert pieces[0].choices[0].delta.role == "assistant"
        *body, last = pieces
        text = "".join(piece.choices[0].delta.content or "" for piece in body)
        assert text == whole.choices[0].message.content
        finishes = [piece.choices[0].finish_reason for piece in body]
        assert finishes[:-1] == [None] * (len(body) - 1)
        assert finishes[-1] == whole.choices[0].finish_reason
        assert last.choices == []
        assert last.usage.completion_tokens == whole.usage.completion_tokens
        assert all(piece.usage is None for piece in body)


def test_a_stream_without_usage_ends_with_its_text(client: OpenAI) -> None:
    *_, last = ask(client, "hello", stream=True)
    assert last.choices[0].finish_reason is not None
    assert last.usage is None


def test_a_seed_names_a_text_and_choices_differ(client: OpenAI, model: Model) -> None:
    settings = {"temperature": 1.0, "seed": 5, "max_tokens": 20}
    answer = ask(client, "hello", n=3, **settings)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for k, choice in enumerate(answer.choices):
        expected = alone(model, "hello", temperature=1.0, seed=5 + k, max_new_tokens=20)
        assert choice.message.content == expected.text
    assert len({choice.message.content for choice in answer.choices}) == 3
    written = sum(1 for choice in answer.choices for _ in choice.message.content)
    assert answer.usage.completion_tokens >= written
    assert answer.usage.prompt_tokens == len(expected.prompt)
    texts = ["", "", ""]
    for piece in ask(client, "hello", n=3, stream=True, **settings):
        texts[piece.choices[0].index] += piece.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in answer.choices]


def test_without_a_seed_answers_differ(client: OpenAI) -> None:
    texts = {ask(client, "hello", temperature=1.0).choices[0].message.content for _ in range(4)}
    assert len(texts) > 1


def test_stop_strings_and_lengths(client: OpenAI, model: Model) -> None:
    whole = alone(model, "hello", max_new_tokens=40).text
    stop = whole[10:12]
    cut = ask(client, "hello", max_tokens=40, stop=stop)
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    body = chat_body("hello", max_completion_tokens=3)
    del body["max_tokens"]
    assert client.chat.completions.create(**body).usage.completion_tokens == 3


def test_log_probabilities(client: OpenAI, model: Model) -> None:
    answer = ask(client, "hello", logprobs=True, top_logprobs=2)
    expected = alone(model, "hello", logprobs=2)
    content = answer.choices[0].logprobs.content
    assert "".join(entry.token for entry in content) == expected.text
    assert [entry.logprob for entry in content] == pytest.approx([e.logprob for e in expected.logprobs])
    for entry, scored in zip(content, expected.logprobs, strict=True):
        assert bytes(entry.bytes) == entry.token.encode()
        assert [top.logprob for top in entry.top_logprobs] == pytest.approx([v for _, v in scored.top])
        assert entry.top_logprobs[0].token == entry.token
    streamed = []
    for piece in ask(client, "hello", logprobs=True, top_logprobs=2, stream=True):
        if piece.choices[0].logprobs:
            streamed += piece.choices[0].logprobs.content
    assert [entry.token for entry in streamed] == [entry.token for entry in content]


def test_biases_and_penalties_count(client: OpenAI, model: Model) -> None:
    token = alone(model, "hello").tokens[0]
    banned = ask(client, "hello", logit_bias={str(token): -100})
    assert banned.choices[0].message.content == alone(model, "hello", logit_bias={token: -100.0}).text
    for name in ("presence_penalty", "frequency_penalty"):
        answer = ask(client, "hello", max_tokens=40, **{name: 2.0})
        assert (
            answer.choices[0].message.content == alone(model, "hello", max_new_tokens=40, **{name: 2.0}).text
        )


def test_messages_with_parts_and_roles(client: OpenAI, server: Running, model: Model) -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    answer = client.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": parts}], max_tokens=8, temperature=0
    )
    assert answer.choices[0].message.content == alone(model, "hello").text
    # What came back may be sent again as it is.
    history = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {**answer.choices[0].message.model_dump()},
        {"role": "user", "content": "more"},
    ]
    again = client.chat.completions.create(model=NAME, messages=history, max_tokens=8, temperature=0)
    plain = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": answer.choices[0].message.content},
        {"role": "user", "content": "more"},
    ]
    assert again.choices[0].message.content == model.generate(plain, max_new_tokens=8).text


def test_plain_completions(client: OpenAI, model: Model) -> None:
    ids = model.tokenizer.encode("hello")
    other = model.tokenizer.encode("other")
    for prompt, prompts in (
        ("hello", [ids]),
        (ids, [ids]),
        (["hello", "other"], [ids, other]),
        ([ids, other], [ids, other]),
    ):
        answer = client.completions.create(model=NAME, prompt=prompt, max_tokens=8, temperature=0, logprobs=1)
        for choice, tokens in zip(answer.choices, prompts, strict=True):
            expected = model.generate(tokens, max_new_tokens=8)
            assert choice.text == expected.text
            assert "".join(choice.logprobs.tokens) == expected.text
            assert choice.logprobs.text_offset == list(range(len(expected.text)))
    pieces = list(
        client.completions.create(model=NAME, prompt="hello", max_tokens=8, temperature=0, stream=True)
    )
    assert "".join(piece.choices[0].text for piece in pieces) == model.generate(ids, max_new_tokens=8).text
    default = client.completions.create(model=NAME, prompt="hello", temperature=0)
    assert default.usage.completion_tokens <= 16


def test_json_answers(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"enum": [1, 2]}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    for draft in ("none", "ngram"):
        answer = ask(client, "hello", max_tokens=60, response_format=form, ventris={"draft": draft})
        person = json.loads(answer.choices[0].message.content)
        assert set(person) == {"name", "age"}
        assert answer.choices[0].finish_reason == "stop"
        assert answer.ventris[0]["valid"] is True
    answer = ask(
        client, "hello", max_tokens=200, temperature=1.0, seed=1, response_format={"type": "json_object"}
    )
    assert answer.choices[0].message.content.startswith("{")
    guided = ask(client, "hello", ventris={"guides": [{"choice": {"options": ["yes", "no"]}}]})
    assert guided.choices[0].message.content in ("yes", "no")


def test_a_verdict_is_part_of_the_answer(client: OpenAI) -> None:
    # No mask keeps items apart; the finished text is checked.
    schema = {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2, "uniqueItems": True, "minItems": 2}
    form = {"type": "json_schema", "json_schema": {"name": "pair", "schema": schema}}
    answer = ask(client, "hello", max_tokens=30, response_format=form)
    pair = json.loads(answer.choices[0].message.content)
    assert answer.ventris[0]["valid"] is (len(set(pair)) == 2)


def test_ventris_own_fields(client: OpenAI, server: Running) -> None:
    answer = ask(
        client, "abc " * 20, max_tokens=40, ventris={"draft": "ngram", "policy": "fixed", "trace": True}
    )
    facts = answer.ventris[0]
    assert facts["guarantee"]["exact"] is True
    assert facts["stats"]["drafted"] >= facts["stats"]["accepted"]
    assert sum(step["count"] for step in facts["trace"]["steps"]) == answer.usage.completion_tokens
    details = answer.usage.completion_tokens_details
    assert details.accepted_prediction_tokens == facts["stats"]["accepted"]
    assert details.rejected_prediction_tokens == facts["stats"]["drafted"] - facts["stats"]["accepted"]
    reply = server.chat("abc " * 20, max_tokens=40, stream=True, ventris={"draft": "ngram", "trace": True})
    steps = [event["ventris"]["step"] for event in reply.events if "step" in event.get("ventris", {})]
    tokens = [token for event in reply.events for token in event.get("ventris", {}).get("tokens", [])]
    assert "".join(token["text"] for token in tokens) == answer.choices[0].message.content
    assert {token["source"] for token in tokens} <= {"target", "ngram"}
    assert all(len(step["tokens"]) == len(step["parents"]) for step in steps)
    assert reply.events[-1]["ventris"]["guarantee"]["exact"] is True


def test_models_health_and_metrics(client: OpenAI, server: Running) -> None:
    card = client.models.list().data[0]
    assert card.id == NAME
    assert "ngram" in card.ventris["drafts"]
    assert client.models.retrieve(NAME).id == NAME
    assert server.ask("GET", "/health").json["status"] == "ok"
    ask(client, "abc " * 20, max_tokens=40, ventris={"draft": "ngram", "policy": "fixed"})
    page = server.ask("GET", "/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    text = page.body.decode()
    for name in (
        "ventris_queue",
        "ventris_running",
        "ventris_batch_size_bucket",
        "ventris_tokens_per_second",
        'ventris_tokens_total{kind="output"}',
        'ventris_draft_tokens_judged_total{depth="1"}',
        'ventris_draft_tokens_accepted_total{depth="1"}',
        "ventris_time_to_first_token_seconds_bucket",
        "ventris_time_per_token_seconds_bucket",
        "ventris_cache_bytes",
        "ventris_prefix_bytes",
        'ventris_http_responses_total{path="/v1/chat/completions",status="200"}',
    ):
        assert f"\n{name}" in text, name


def test_a_shared_beginning_is_read_once(client: OpenAI) -> None:
    text = "the same long beginning " * 8
    ask(client, text + "a")
    again = ask(client, text + "b")
    assert again.usage.prompt_tokens_details.cached_tokens >= len(text)


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "how it is outside",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def test_tools_are_called_in_their_form(client: OpenAI) -> None:
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        fields = {"tools": [WEATHER], "tool_choice": choice, "parallel_tool_calls": False, "max_tokens": 150}
        answer = ask(client, "hello", **fields).choices[0]
        assert answer.finish_reason == "tool_calls"
        (call,) = answer.message.tool_calls
        assert answer.message.content is None
        assert (call.type, call.function.name) == ("function", "weather")
        assert json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")
        names, arguments, finish, text = "", "", None, ""
        for piece in ask(client, "hello", stream=True, **fields):
            delta = piece.choices[0].delta
            for part in delta.tool_calls or ():
                assert part.index == 0
                names += part.function.name
                arguments += part.function.arguments
            text += delta.content or ""
            finish = piece.choices[0].finish_reason or finish
        assert (names, arguments, finish, text) == ("weather", call.function.arguments, "tool_calls", "")
        # The call and what the tool said may be sent back.
        history = [
            {"role": "user", "content": "hello"},
            answer.message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ]
        again = client.chat.completions.create(
            model=NAME, messages=history, tools=[WEATHER], tool_choice="none", max_tokens=5, temperature=0
        )
        assert again.choices[0].message.tool_calls is None


def test_tools_may_be_left_alone(client: OpenAI) -> None:
    answer = ask(client, "hello", tools=[WEATHER], max_tokens=12)
    pieces = list(ask(client, "hello", tools=[WEATHER], max_tokens=12, stream=True))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
