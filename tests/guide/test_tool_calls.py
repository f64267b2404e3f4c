"""Tool calls: what may be written in each family's format, and reading it back, whole or as it arrives."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ventris.draft import NGram
from ventris.engine.errors import BadInput
from ventris.guide import CallStream, ToolCall, ToolCalls, read_calls
from ventris.guide.call_format import readable_messages
from ventris.model import Model
from ventris.models.tokenizer import Tokenizer
from ventris.parts import Workshop, build_guides

from .tiny import TinyTarget, accepts, decode, tiny_tokenizer

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "$defs": {"unit": {"enum": ["C", "F"]}},
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 4}, "unit": {"$ref": "#/$defs/unit"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
ADD: dict[str, Any] = {
    "name": "add",
    "parameters": {
        "$defs": {"unit": {"type": "integer"}},
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/unit"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}
TOOLS = [WEATHER, ADD]
STYLES = ["hermes", "llama3", "mistral"]


def call(name: str, key: str = "arguments", **arguments: Any) -> str:
    return json.dumps({"name": name, key: arguments})


HERMES = f"<tool_call>\n{call('weather', city='Rom', unit='C')}\n</tool_call>"
TWO = f"{HERMES}\n<tool_call>\n{call('add', a=1, b=2)}\n</tool_call>"
ROME = ToolCall("weather", {"city": "Rom"})
MISTRAL = f"[TOOL_CALLS][{call('weather', city='Rom')}, {call('add', a=1, b=2)}]"
LLAMA = call("add", "parameters", a=1, b=2)
CALLS = [ToolCall("weather", {"city": "Rom", "unit": "C"}), ToolCall("add", {"a": 1, "b": 2})]


@pytest.mark.parametrize(
    ("style", "choice", "good", "bad"),
    [
        (
            "hermes",
            "auto",
            ["", "hello", HERMES, TWO, "a " + HERMES],
            [HERMES + "more", "a <tool_call>"],
        ),
        ("hermes", "required", [HERMES, TWO], ["", "hello", "x" + HERMES]),
        ("hermes", "add", [f"<tool_call>\n{call('add', a=1, b=2)}\n</tool_call>"], [HERMES]),
        ("hermes", "required", [], [f"<tool_call>\n{call('weather', city='Rom', unit='K')}\n</tool_call>"]),
        ("hermes", "required", [], [f"<tool_call>\n{call('add', a='C', b=2)}\n</tool_call>"]),
        ("hermes", "required", [], [f"<tool_call>\n{call('other')}\n</tool_call>"]),
        ("llama3", "auto", [LLAMA, "hello", ""], ["{", LLAMA + LLAMA, call("add", a=1, b=2)]),
        ("llama3", "required", [LLAMA], ["hello"]),
        ("mistral", "required", [MISTRAL], ["hello", "[TOOL_CALLS][]"]),
        ("mistral", "auto", [MISTRAL, "hello"], ["[TOOL_CALLS]"]),
    ],
)
def test_what_may_be_written(style: Any, choice: str, good: list[str], bad: list[str]) -> None:
    guide = ToolCalls(TOOLS, choice, style=style)
    assert [text for text in good if not accepts(guide, text)] == []
    assert [text for text in bad if accepts(guide, text)] == []


def test_a_single_call() -> None:
    guide = ToolCalls(TOOLS, "required", style="hermes", parallel=False)
    assert accepts(guide, HERMES)
    assert not accepts(guide, TWO)


@pytest.mark.parametrize(
    ("style", "text", "content", "calls"),
    [
        ("hermes", TWO, "", CALLS),
        ("hermes", "I look it up.\n" + TWO, "I look it up.\n", CALLS),
        ("hermes", f"<tool_call>[{call('add', a=1, b=2)}]</tool_call>", "", CALLS[1:]),
        ("hermes", "a < b <tool_cal", "a < b <tool_cal", []),
        ("hermes", "<tool_call>{oops}</tool_call>", "<tool_call>{oops}</tool_call>", []),
        ("hermes", "<tool_call>{", "<tool_call>{", []),
        ("llama3", LLAMA, "", CALLS[1:]),
        ("llama3", "It is {x}.", "It is {x}.", []),
        ("llama3", '{"a": 1', '{"a": 1', []),
        ("mistral", MISTRAL, "", [ROME, CALLS[1]]),
        (
            "mistral",
            MISTRAL.removeprefix("[TOOL_CALLS]"),
            "",
            [ROME, CALLS[1]],
        ),
        ("mistral", "hello [1]", "hello [1]", []),
    ],
)
def test_reading_whole_and_as_it_arrives(style: Any, text: str, content: str, calls: list[ToolCall]) -> None:
    answer = read_calls(text, style)
    assert (answer.content, answer.calls) == (content, calls)
    for size in (1, 2, 7):
        stream = CallStream(style)
        pieces = [text[place : place + size] for place in range(0, len(text), size)]
        found = [item for piece in pieces for item in stream.push(piece)] + [*stream.finish()]
        assert "".join(item for item in found if isinstance(item, str)) == content
        assert [item for item in found if isinstance(item, ToolCall)] == calls


@given(st.text(alphabet='<tool_ca>/{}[]":, \nx1', max_size=40), st.sampled_from(STYLES))
def test_no_text_breaks_the_reader_and_pieces_make_no_difference(text: str, style: Any) -> None:
    whole = read_calls(text, style)
    stream = CallStream(style)
    found = [item for letter in text for item in stream.push(letter)] + [*stream.finish()]
    assert "".join(item for item in found if isinstance(item, str)) == whole.content


@pytest.mark.parametrize("style", STYLES)
def test_what_is_decoded_is_read(style: Any) -> None:
    guide = ToolCalls(TOOLS, "required", style=style, close="in-time")
    for seed in range(3):
        done = decode([guide], drafter=NGram(), tokens=120, temperature=1.0, seed=seed)[0]
        assert done.valid
        assert done.finish_reason == "stop"
        answer = guide.read(done.text)
        assert answer.calls
        assert not answer.content
        assert {found.name for found in answer.calls} <= {"weather", "add"}


def with_template(template: str) -> Tokenizer:
    tiny = tiny_tokenizer()
    return Tokenizer(tiny.backend, replace(tiny.facts, chat_templates={"default": template}))


@pytest.mark.parametrize(
    ("template", "style"),
    [
        ("{% if tools %}... <tool_call>{{ call }}</tool_call>", "hermes"),
        ("... [TOOL_CALLS] {{ tools }}", "mistral"),
        ("{{ '<|python_tag|>' }}", "llama3"),
    ],
)
def test_the_template_says_the_format(template: str, style: str) -> None:
    bound = ToolCalls(TOOLS).bind(with_template(template))
    assert bound.format is not None
    assert bound.format.style == style


def test_the_prompt_describes_the_tools() -> None:
    plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Rom?"}]
    tokenizer = with_template(plain)
    told = tokenizer.decode(ToolCalls(TOOLS, style="hermes").prompt(tokenizer, messages))
    assert told.startswith("system: Be brief.\n\nYou may call functions.")
    assert '"name": "weather"' in told
    assert told.endswith("user: Rom?\n")
    knowing = with_template("{{ tools | tojson }}" + plain)
    own = knowing.decode(ToolCalls(TOOLS, style="hermes").prompt(knowing, messages))
    assert own.startswith('[{"type": "function"')


def test_tools_by_name_and_file(tmp_path: Any) -> None:
    file = tmp_path / "tools.json"
    file.write_text(json.dumps(TOOLS))
    (guide,) = build_guides(f"tool-calls:{file},choice=add,style=hermes", Workshop())
    assert [tool["function"]["name"] for tool in guide.tools] == ["weather", "add"]
    assert guide.choice == "add"


@pytest.mark.parametrize(
    ("tools", "options", "said"),
    [
        ([], {}, "there are no tools"),
        ([{"parameters": {}}], {}, "has no name"),
        ([ADD, ADD], {}, "two tools are named 'add'"),
        (TOOLS, {"choice": "sub"}, "there is no tool 'sub'"),
        (TOOLS, {"style": "basic"}, "style is 'basic'"),
        ("no.json", {}, "neither a file nor JSON"),
    ],
)
def test_what_is_refused(tools: Any, options: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        ToolCalls(tools, **options)


def test_a_template_without_calls_is_refused() -> None:
    with pytest.raises(BadInput, match="set style to one of: hermes, llama3, mistral"):
        ToolCalls(TOOLS).bind(tiny_tokenizer())


PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def chat_model(template: str = PLAIN) -> Model:
    return Model(TinyTarget(context_length=4096), with_template(template))


def test_a_model_calls_tools_that_are_given_to_generate() -> None:
    model = chat_model()
    settings: dict[str, Any] = {"tools": TOOLS, "max_new_tokens": 200}
    done = model.generate("Rom?", tool_choice="weather", **settings)
    assert done.finish_reason == "stop"
    assert done.valid
    (made,) = model.read_calls(done.text).calls[:1]
    assert made.name == "weather"
    assert set(made.arguments) <= {"city", "unit"}
    drafted = model.generate([{"role": "user", "content": "Rom?"}], draft="ngram", policy="fixed", **settings)
    assert drafted.tokens == model.generate("Rom?", **settings).tokens
    asked = model.request("Rom?", **settings)
    assert asked.prompt == ToolCalls(TOOLS, style="hermes").prompt(
        with_template(PLAIN), [{"role": "user", "content": "Rom?"}]
    )
    assert [guide.name for guide in asked.guides] == ["tool-calls"]
    assert [guide.name for guide in model.request("Rom?", guides="words:exclude=x", **settings).guides] == [
        "tool-calls",
        "words",
    ]


def test_tools_need_a_conversation_and_a_choice_needs_tools() -> None:
    model = chat_model()
    for prompt, settings, said in (
        ("Rom?", {"tools": TOOLS, "raw": True}, "without raw"),
        ([1, 2], {"tools": TOOLS}, "give a text or chat messages"),
        ("Rom?", {"tool_choice": "required"}, "tool_choice needs tools"),
        ("Rom?", {"tools": TOOLS, "tool_choice": "sub"}, "there is no tool 'sub'"),
        ("Rom?", {"tools": []}, "there are no tools"),
    ):
        with pytest.raises(BadInput, match=said):
            model.request(prompt, **settings)


def test_calls_of_earlier_turns_are_written_as_the_template_knows_them() -> None:
    earlier = {
        "role": "assistant",
        "content": "Wait.",
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": '{"city": "Rom"}'}}],
    }
    (told,) = readable_messages([earlier], PLAIN)
    assert told == {
        "role": "assistant",
        "content": 'Wait.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rom"}}\n</tool_call>',
    }
    (known,) = readable_messages([earlier], "{{ m.tool_calls }}")
    assert known["tool_calls"][0]["function"]["arguments"] == {"city": "Rom"}
    tokenizer = with_template(PLAIN)
    prompt = ToolCalls(TOOLS, style="hermes").prompt(tokenizer, [earlier, {"role": "tool", "content": "20"}])
    assert '{"city": "Rom"}}\n</tool_call>\ntool: 20' in tokenizer.decode(prompt)
