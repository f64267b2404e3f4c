"""How families of models write tool calls, and reading calls back while the text arrives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ventris.engine.errors import BadInput

CallStyle = Literal["hermes", "llama3", "mistral"]


@dataclass(frozen=True, slots=True)
class CallFormat:
    """The text around a call, which itself is ``{"name": …, "arguments": {…}}``.

    Attributes:
        arguments: The key of the arguments.
        mark: What announces calls; ``""`` if a call is all there is.
        head: Behind the mark.
        between: Between two calls; ``None`` where there is only one.
        tail: Behind the last call.
    """

    style: CallStyle
    arguments: str
    mark: str
    head: str
    between: str | None
    tail: str


FORMATS: dict[str, CallFormat] = {
    # Hermes, Qwen 2.5 and 3, SmolLM2.
    "hermes": CallFormat(
        "hermes",
        "arguments",
        "<tool_call>",
        "\n",
        "\n</tool_call>\n<tool_call>\n",
        "\n</tool_call>",
    ),
    "llama3": CallFormat("llama3", "parameters", "", "", None, ""),
    "mistral": CallFormat("mistral", "arguments", "[TOOL_CALLS]", "[", ", ", "]"),
}


class _HasTemplates(Protocol):
    @property
    def facts(self) -> Any: ...


def format_of(tokenizer: _HasTemplates) -> CallFormat:
    """The format that a model's chat template writes.

    Raises:
        BadInput: if the template writes none that is known.
    """
    facts = getattr(tokenizer, "facts", None)
    templates = " ".join(facts.chat_templates.values()) if facts is not None else ""
    for sign, style in (("[TOOL_CALLS]", "mistral"), ("<tool_call>", "hermes"), ("<|python_tag|>", "llama3")):
        if sign in templates:
            return FORMATS[style]
    raise BadInput(
        "the model's chat template writes no tool calls of a known kind; "
        f"set style to one of: {', '.join(FORMATS)}"
    )


def style_of(tokenizer: object) -> CallStyle:
    """How a model is best asked for calls: as its chat template writes them, else in the style of Hermes."""
    try:
        return format_of(tokenizer).style  # type: ignore[arg-type]  # looks for templates, need not find any
    except BadInput:
        return "hermes"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that a model asks for."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """An answer taken apart: text for the reader, and calls."""

    content: str
    calls: list[ToolCall]


def read_calls(text: str, style: CallStyle) -> ToolAnswer:
    """Take a whole answer apart. What only looks like a call stays text."""
    stream = CallStream(style)
    found = [*stream.push(text), *stream.finish()]
    content = "".join(item for item in found if isinstance(item, str))
    return ToolAnswer(content, [item for item in found if isinstance(item, ToolCall)])


@dataclass(slots=True)
class CallStream:
    """Takes an answer apart while it arrives: calls when whole, text once it cannot begin one."""

    style: CallStyle
    _waiting: str = ""
    _began: bool = False
    _calls: int = field(default=0)

    def push(self, text: str) -> Iterator[str | ToolCall]:
        """What is certain now that ``text`` has arrived: pieces of text and calls, in order."""
        self._waiting += text
        return iter(self._hermes() if self.style == "hermes" else self._leading())

    def finish(self) -> Iterator[str | ToolCall]:
        """The rest: an unfinished call is text."""
        rest, self._waiting = self._waiting, ""
        if rest and not (self._calls and not rest.strip("] \n\t;")):
            yield rest

    def _hermes(self) -> list[str | ToolCall]:
        opening, closing = "<tool_call>", "</tool_call>"
        found: list[str | ToolCall] = []
        while True:
            start = self._waiting.find(opening)
            if start < 0:
                held = _overlap(self._waiting, opening)
                self._say(found, self._waiting[: len(self._waiting) - held])
                self._waiting = self._waiting[len(self._waiting) - held :]
                return found
            stop = self._waiting.find(closing, start)
            self._say(found, self._waiting[:start])
            self._waiting = self._waiting[start:]
            if stop < 0:
                return found
            end = stop - start + len(closing)
            block, self._waiting = self._waiting[:end], self._waiting[end:]
            calls = _calls_in(block[len(opening) : -len(closing)])
            self._calls += len(calls)
            found += calls or [block]

    def _say(self, found: list[str | ToolCall], text: str) -> None:
        # Line breaks between and around calls are layout.
        if text and not (self._calls and not text.strip()):
            found.append(text)

    def _leading(self) -> list[str | ToolCall]:
        """Formats in which calls are the whole answer, or its beginning."""
        found: list[str | ToolCall] = []
        text = self._waiting.lstrip() if not self._began else self._waiting
        mark = FORMATS[self.style].mark
        opening = "[" if self.style == "mistral" else "{"
        if not self._began and mark and (text.startswith(mark) or mark.startswith(text)):
            if not text.startswith(mark):
                return found
            text = text[len(mark) :].lstrip()
        if not self._began and not (text.startswith(opening) or not text):
            found.append(self._waiting)
            self._waiting, self._began, self._calls = "", True, -1
            return found
        if self._calls < 0:
            found.append(self._waiting)
            self._waiting = ""
            return found
        if not self._began and text:
            self._began = True
            text = text[1:] if self.style == "mistral" else text
            self._waiting = text
        decoder = json.JSONDecoder()
        while self._began and (text := self._waiting.lstrip(", \n\t;")).startswith("{"):
            try:
                value, end = decoder.raw_decode(text)
            except ValueError:
                break
            call = _call(value)
            if call is None:
                found.append(text[:end])
            else:
                found.append(call)
                self._calls += 1
            self._waiting = text[end:]
        return found


def _calls_in(text: str) -> list[ToolCall]:
    try:
        value = json.loads(text)
    except ValueError:
        return []
    calls = [_call(item) for item in (value if isinstance(value, list) else [value])]
    return [call for call in calls if call is not None] if None not in calls else []


def _call(value: Any) -> ToolCall | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    return ToolCall(value["name"], arguments) if isinstance(arguments, dict) else None


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``mark``."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if mark.startswith(text[-n:])), 0)


def readable_messages(messages: Sequence[Mapping[str, Any]], templates: str) -> list[Mapping[str, Any]]:
    """A conversation as chat templates read it: arguments of earlier calls are values and not JSON text.

    Args:
        templates: Those of the model. If they know no calls, earlier ones become text, as Hermes writes them.
    """
    return [
        _readable(said, "tool_calls" in templates) if said.get("tool_calls") else said for said in messages
    ]


def _readable(message: Mapping[str, Any], knows_calls: bool) -> Mapping[str, Any]:
    calls = []
    for call in message["tool_calls"]:
        function = call.get("function", call)
        calls.append({**call, "function": {**function, "arguments": _value(function.get("arguments"))}})
    if knows_calls:
        return {**message, "tool_calls": calls}
    named = [{key: call["function"].get(key) for key in ("name", "arguments")} for call in calls]
    told = [f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in named]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(filter(None, [message.get("content"), *told]))}


def _value(arguments: Any) -> Any:
    """Arguments as templates write them: JSON where they are JSON."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments


def plain_tools(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """Tools as OpenAI's API describes them, from descriptions with or without the ``function`` around them.

    Raises:
        BadInput: for a tool without a name, or a name that is there twice.
    """
    found: list[dict[str, Any]] = []
    for tool in tools:
        inner = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"]:
            raise BadInput(f"the tool {str(tool)[:80]!r} has no name; give name, description and parameters")
        parameters = inner.get("parameters") or {"type": "object", "properties": {}}
        if not isinstance(parameters, dict):
            raise BadInput(f"the parameters of tool {inner['name']!r} are no JSON schema")
        found.append({"type": "function", "function": {**inner, "parameters": parameters}})
    names = [tool["function"]["name"] for tool in found]
    if not names:
        raise BadInput("there are no tools to call; give at least one")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"two tools are named {twice!r}")
    return found
