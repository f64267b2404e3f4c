"""``tool-calls``: the answer calls tools, in the format that the model's chat template knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import copy
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from pydantic import BaseModel, Field

from ventris.engine.errors import BadInput
from ventris.guide.back_ends.choice import LLGUIDANCE
from ventris.guide.call_format import (
    FORMATS,
    CallFormat,
    CallStream,
    CallStyle,
    ToolAnswer,
    format_of,
    plain_tools,
    read_calls,
    readable_messages,
)
from ventris.guide.hard import HardSettings, with_hard_options
from ventris.guide.json_schema import WHITESPACE, JsonSchema
from ventris.guide.schema.formats import AT_END
from ventris.guide.schema.rewrite import rewrite
from ventris.guide.sources import read_text
from ventris.guide.vocabulary import ByteTokenizer, Vocabulary

if TYPE_CHECKING:
    from ventris.guide.matcher import Matcher
    from ventris.models.tokenizer import Tokenizer

SYSTEM = (
    "You may call functions. They are described in <tools></tools>:\n<tools>\n{tools}\n</tools>\n"
    "To call one, answer with its name and arguments as JSON in <tool_call></tool_call>:\n"
    '<tool_call>\n{{"name": <function name>, "arguments": <arguments>}}\n</tool_call>'
)
"""Says to a model whose template knows no tools what the others are told by theirs."""


class ToolCalls(JsonSchema):
    """Allows calls of the given tools whose arguments are valid under the tools' schemas.

    Args:
        tools: Descriptions as OpenAI's API has them (with or without ``{"type": "function", "function":
            …}`` around them), a file with a JSON list of them, or its text.
        choice: ``"auto"``: text, calls, or (Hermes) text and then calls. ``"required"``: calls and nothing
            else. Otherwise the name of the one tool to call.
        parallel: Allow several calls in an answer.
        style: How calls are written; found in the chat template when not given.
        strict: Refuse schemas with rules that no mask can keep.
    """

    name = "tool-calls"
    back_ends = (LLGUIDANCE,)

    @with_hard_options
    class Options(BaseModel):
        tools: str = Field(description="file with a JSON list of tools, or its text")
        choice: str = Field("auto", description="auto, required, or the name of a tool")
        parallel: bool = Field(True, description="allow several calls in an answer")
        style: CallStyle | None = Field(None, description="hermes, llama3 or mistral; else by the template")
        strict: bool = Field(False, description="refuse rules that are checked only at the end")

    def __init__(
        self,
        tools: str | PathLike[str] | Sequence[Any],
        choice: str | Literal["auto", "required"] = "auto",
        *,
        parallel: bool = True,
        style: CallStyle | None = None,
        strict: bool = False,
        **settings: Unpack[HardSettings],
    ) -> None:
        if style is not None and style not in FORMATS:
            raise BadInput(f"style is {style!r}; it must be one of: {', '.join(FORMATS)}")
        self.tools = plain_tools(_read_tools(tools))
        self.choice = choice
        self.parallel = parallel
        self.format: CallFormat | None = FORMATS[style] if style else None
        self._mark_id: int | None = None
        names = [tool["function"]["name"] for tool in self.tools]
        if choice not in ("auto", "required", *names):
            raise BadInput(f"there is no tool {choice!r} to call; there are: {', '.join(names)}")
        super().__init__(self._schema(), whitespace="spaced", strict=strict, **settings)

    def _schema(self) -> dict[str, Any]:
        """The schema of one call."""
        key = self.format.arguments if self.format else "arguments"
        called = [tool["function"] for tool in self.tools]
        if self.choice not in ("auto", "required"):
            called = [tool for tool in called if tool["name"] == self.choice]
        calls = [
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool["name"]},
                    # An identity of its own keeps the references in a tool's schema inside it.
                    key: {"$id": f"tool:{number}", **tool["parameters"]},
                },
                "required": ["name", key],
                "additionalProperties": False,
            }
            for number, tool in enumerate(called)
        ]
        return {"anyOf": calls}

    def bind(self, tokenizer: ByteTokenizer | None) -> Self:
        """The guide for one tokenizer; the format is that of its chat template, if none was given.

        Raises:
            BadInput: as :meth:`HardGuide.bind`, and if the template writes no known tool calls.
        """
        if self.format is not None or tokenizer is None:
            return super().bind(tokenizer)
        chosen = copy(self)
        chosen.format = format_of(tokenizer)  # type: ignore[arg-type]  # looks for templates, need not find any
        chosen.schema = chosen._schema()
        return chosen.bind(tokenizer)

    def compile(self, vocabulary: Vocabulary) -> Matcher:
        self._mark_id = _special_id(vocabulary, self.format.mark if self.format else "")
        return super().compile(vocabulary)

    def grammar(self) -> str:
        """Calls, and where they may be left out, text that does not look like one."""
        how = self._known_format()
        schema = {**_object(rewrite(self.schema, self.limits, self._relaxed)[0])}
        schema["x-guidance"] = WHITESPACE[self.whitespace]
        several = f"({json.dumps(how.between)} call)*" if self.parallel and how.between else ""
        body = " ".join(filter(None, [_literal(how.head), "call", several, _literal(how.tail)]))
        mark = _literal(how.mark) if self._mark_id is None else f"<[{self._mark_id}]>"
        lines = [f"calls: {body}", f"call: %json {json.dumps(schema)}"]
        if self.choice != "auto":
            start = f"{mark} calls"
        elif how.style == "hermes":
            start = "TEXT | before calls"
            lines += [f"before[lazy]: /(?s:.*)/ {mark}", f"TEXT: /(?s:.*)/ & ~/(?s:.*){how.mark}(?s:.*)/"]
        else:
            start = f"TEXT | {mark} calls"
            opening = "{" if how.style == "llama3" else "["
            lines.append(rf"TEXT: /([^\{opening}](?s:.*))?/")
        return "\n".join([f"start: {start}", *lines]) + "\n"

    def _known_format(self) -> CallFormat:
        if self.format is None:
            raise BadInput("the format of the calls is not known yet; give a style, or bind a tokenizer")
        return self.format

    def satisfied(self, text: bytes) -> bool:
        """Whether the arguments of every call are valid under the whole schema."""
        assert self._vocabulary is not None
        how = self._known_format()
        calls = [
            json.dumps({"name": call.name, how.arguments: call.arguments})
            for call in self.read(text.decode()).calls
        ]
        return not any(self._vocabulary.worker.faults(calls, self._text, AT_END, self.limits))

    @property
    def refuses_broken_ends(self) -> bool:
        """False: a call is broken long before the text may end, and one more call would not mend it."""
        return False

    def read(self, text: str) -> ToolAnswer:
        """The text and the calls of an answer."""
        return read_calls(text, self._known_format().style)

    def stream(self) -> CallStream:
        """Reads an answer while it arrives."""
        return CallStream(self._known_format().style)

    def prompt(self, tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """A conversation with the tools described to the model.

        By the chat template if it knows tools, otherwise in a system message. Messages are as OpenAI's API
        has them, with ``tool_calls`` of earlier turns.

        Raises:
            BadInput: if there is no template, or it refuses the messages.
        """
        templates = tokenizer.facts.chat_templates
        messages = readable_messages(messages, " ".join(templates.values()))
        if "tools" in (templates.get("tool_use") or templates.get("default") or ""):
            return tokenizer.chat(messages, tools=self.tools)
        described = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in self.tools)
        told, rest = [SYSTEM.format(tools=described)], list(messages)
        if rest and rest[0].get("role") == "system":
            told.insert(0, str(rest.pop(0).get("content", "")))
        return tokenizer.chat([{"role": "system", "content": "\n\n".join(told)}, *rest])


def _read_tools(tools: str | PathLike[str] | Sequence[Any]) -> Sequence[Any]:
    if not isinstance(tools, str | PathLike):
        return tools
    text = read_text(tools, "tools")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise BadInput(f"{str(tools)[:80]!r} is neither a file nor JSON; give a list of tools") from None
    return found if isinstance(found, list) else [found]


def _object(schema: Any) -> dict[str, Any]:
    return schema if isinstance(schema, dict) else ({} if schema else {"not": {}})


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""


def _special_id(vocabulary: Vocabulary, mark: str) -> int | None:
    """The id of a mark that is a special token in this vocabulary."""
    return next((t for t in vocabulary.special if vocabulary.token_bytes[t] == mark.encode()), None)
