"""What a prompt may be, and the tokens that it comes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ventris.engine.errors import BadInput
from ventris.engine.request import PromptPart, join_parts

if TYPE_CHECKING:
    from ventris.guide.tool_calls import ToolCalls
    from ventris.models.chat import Message
    from ventris.models.tokenizer import Tokenizer

    PromptLike = str | Sequence[int] | Sequence[Message] | Sequence[PromptPart]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt with settings of its own, for a batch whose members differ.

    Attributes:
        text: The prompt: text, token ids, chat messages, or prompt parts.
        settings: Keyword arguments of :meth:`Model.generate` that hold for this prompt alone.
    """

    text: PromptLike
    settings: Mapping[str, Any] = field(default_factory=dict)


def is_batch(prompt: Any) -> bool:
    """True for a list of prompts; a list of ids, messages or parts is one prompt."""
    if not isinstance(prompt, Sequence) or isinstance(prompt, str):
        return False
    return any(isinstance(item, str | Prompt | list | tuple) for item in prompt)


def read_prompt(
    prompt: Any, tokenizer: Tokenizer | None, raw: bool, tools: ToolCalls | None = None
) -> tuple[list[int], dict[int, Any], dict[str, Any]]:
    """Tokens of a prompt, with the embedded rows and labelled spans of :func:`join_parts`.

    Args:
        raw: A text is taken as it is, not as what a user says in a chat.
        tools: Described by the chat template.

    Raises:
        BadInput: if it is no prompt, or needs a tokenizer or template that is not there.
    """
    if tools is not None:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        if raw or not _is_conversation(messages) or tokenizer is None:
            raise BadInput(
                "tools are described by the chat template; give a text or chat messages, without raw"
            )
        return tools.prompt(tokenizer, messages), {}, {}
    if isinstance(prompt, str):
        if tokenizer is not None and tokenizer.has_chat_template and not raw:
            return tokenizer.chat([{"role": "user", "content": prompt}]), {}, {}
        return encode(tokenizer, prompt), {}, {}
    # Keys and bytes can be walked through like a list, and would be taken for something else.
    if isinstance(prompt, Mapping):
        raise BadInput("a chat message alone is no prompt; give a list of messages")
    if isinstance(prompt, bytes | bytearray):
        raise BadInput("the prompt is bytes; decode it to text, or give a list of token ids")
    items = list(prompt) if isinstance(prompt, Iterable) else [prompt]
    if items and all(isinstance(item, PromptPart) for item in items):
        return join_parts(items)
    if items and all(isinstance(item, Mapping) for item in items):
        if tokenizer is None:
            raise BadInput("chat messages need a tokenizer; give token ids instead")
        return tokenizer.chat(items), {}, {}
    if isinstance(prompt, Iterable) and all(isinstance(item, int) for item in items):
        return items, {}, {}
    raise BadInput("a prompt is text, a list of token ids, a list of chat messages, or prompt parts")


def encode(tokenizer: Tokenizer | None, text: str) -> list[int]:
    """Tokens of a text as it is.

    Raises:
        BadInput: without a tokenizer.
    """
    if tokenizer is None:
        raise BadInput("this model has no tokenizer; give token ids instead of text")
    return tokenizer.encode(text)


def spellings(tokenizer: Tokenizer | None, word: str) -> list[list[int]]:
    """A word's tokens at the beginning of a text and after a space.

    Raises:
        BadInput: without a tokenizer.
    """
    found = [encode(tokenizer, word), encode(tokenizer, " " + word)]
    return [ids for index, ids in enumerate(found) if ids and ids not in found[:index]]


def _is_conversation(prompt: Any) -> bool:
    return (
        isinstance(prompt, list | tuple)
        and bool(prompt)
        and all(isinstance(item, Mapping) for item in prompt)
    )
