"""From a client's body to the engine's requests."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ventris.engine.request import Request
from ventris.serve.errors import ApiError, refusal
from ventris.serve.offered import Offered
from ventris.serve.requests import AnswerRequest, ChatRequest, CompletionRequest, Message, VentrisFields
from ventris.serve.settings import ServerSettings

if TYPE_CHECKING:
    from ventris.guide.tool_calls import ToolCalls
    from ventris.model import Model

COMPLETION_TOKENS = 16
"""Length of a plain completion for which no other was asked, as OpenAI has it."""

CHAT_TOKENS = 1024
"""Length of a chat answer for which no other was asked, here or at the server's start."""

SAME_NAMES = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "logit_bias")
OWN_SAMPLING = (
    "top_k",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "min_new_tokens",
    "banned_words",
    "forced_words",
    "stop_ids",
    "ignore_eos",
)


@dataclass(frozen=True, slots=True)
class Translator:
    """Builds requests; may be used from several threads.

    Args:
        defaults: Settings of generations that clients do not set, from the server's start.
    """

    model: Model
    settings: ServerSettings
    offered: Offered
    defaults: Mapping[str, Any]

    def chat(self, body: ChatRequest) -> list[Request]:
        """Requests for ``n`` answers to a conversation.

        Raises:
            ApiError: naming the field that cannot be used.
        """
        tools = self._tools(body)
        longest = body.max_completion_tokens or body.max_tokens
        settings = self._sampling(body, longest, CHAT_TOKENS)
        if body.logprobs:
            settings["logprobs"] = body.top_logprobs or 0
        guides = [*([tools] if tools else self._form(body)), *self._guides(body.ventris)]
        settings["guides"] = guides or settings.get("guides")
        return self._requests([self._conversation(body.messages, tools)], body, settings)

    def completion(self, body: CompletionRequest) -> list[Request]:
        """Requests for ``n`` answers to each prompt.

        Raises:
            ApiError: naming the field that cannot be used.
        """
        settings = self._sampling(body, body.max_tokens, COMPLETION_TOKENS)
        if body.logprobs is not None:
            settings["logprobs"] = body.logprobs
        settings["guides"] = self._guides(body.ventris) or settings.get("guides")
        return self._requests([self._plain(text) for text in self._prompts(body)], body, settings)

    # Prompts.

    def _conversation(self, messages: Sequence[Message], tools: ToolCalls | None) -> list[int]:
        tokenizer = self.model.tokenizer
        if tokenizer is None or not tokenizer.has_chat_template:
            raise ApiError(
                400, "this model has no chat template; use /v1/completions", "unsupported", "messages"
            )
        try:
            plain = [_plain_message(message) for message in messages]
            if tools is not None:
                return tools.prompt(tokenizer, plain)
            from ventris.guide.call_format import readable_messages

            templates = " ".join(tokenizer.facts.chat_templates.values())
            return tokenizer.chat(readable_messages(plain, templates))
        except Exception as error:
            raise refusal(error, "messages") from error

    def _prompts(self, body: CompletionRequest) -> list[str | list[int]]:
        prompt = body.prompt
        if isinstance(prompt, str) or isinstance(prompt[0], int):
            return [prompt]
        return list(prompt)

    def _plain(self, prompt: str | list[int]) -> list[int]:
        if not isinstance(prompt, str):
            return prompt
        if self.model.tokenizer is None:
            raise ApiError(400, "this model has no tokenizer; give token ids", "unsupported", "prompt")
        try:
            tokens = self.model.tokenizer.encode(prompt, special=True)
        except Exception as error:
            raise refusal(error, "prompt") from error
        if not tokens:
            raise ApiError(400, "the prompt is empty", "invalid_value", "prompt")
        return tokens

    # Settings.

    def _sampling(self, body: AnswerRequest, longest: int | None, usual: int) -> dict[str, Any]:
        # OpenAI's default is to sample; what was said at the server's start goes before it.
        settings: dict[str, Any] = {"temperature": 1.0, **self.defaults}
        settings |= {key: value for key in SAME_NAMES if (value := getattr(body, key)) is not None}
        own = body.ventris
        settings |= {key: value for key in OWN_SAMPLING if (value := getattr(own, key)) is not None}
        if body.stop:
            settings["stop"] = [body.stop] if isinstance(body.stop, str) else [s for s in body.stop if s]
        settings["max_new_tokens"] = self._longest(longest, usual)
        if body.seed is None and "seed" not in self.defaults:
            settings["seed"] = secrets.randbits(62)
        settings |= self._parts(own)
        settings["trace"] = own.trace
        return settings

    def _longest(self, asked: int | None, usual: int) -> int:
        limit = self.settings.max_output
        if asked is not None and limit is not None and asked > limit:
            raise ApiError(
                400, f"max_tokens is {asked} and this server allows {limit}", "too_large", "max_tokens"
            )
        length = asked or int(self.defaults.get("max_new_tokens", usual))
        return length if limit is None else min(length, limit)

    def _parts(self, own: VentrisFields) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        for field in ("draft", "verifier", "policy"):
            spec = getattr(own, field)
            if spec is None:
                continue
            try:
                parts[field] = getattr(self.offered, field)(spec)
            except Exception as error:
                raise refusal(error, f"ventris.{field}") from error
        return parts

    def _guides(self, own: VentrisFields) -> list[Any]:
        try:
            return [
                self.offered.guide(name, options) for guide in own.guides for name, options in guide.items()
            ]
        except Exception as error:
            raise refusal(error, "ventris.guides") from error

    def _tools(self, body: ChatRequest) -> ToolCalls | None:
        """The guide for calls; ``None`` if there are to be none."""
        choice = body.tool_choice or ("auto" if body.tools else "none")
        if choice == "none":
            return None
        if not body.tools:
            raise ApiError(400, "tool_choice needs tools to choose from", "invalid_value", "tool_choice")
        if body.response_format is not None and body.response_format.type != "text":
            raise ApiError(
                400, "tools and a response_format exclude each other", "invalid_value", "response_format"
            )
        named = choice if isinstance(choice, str) else choice.function.name
        functions = [tool.function for tool in body.tools]
        if not isinstance(choice, str) and named not in [function.name for function in functions]:
            raise ApiError(400, f"there is no tool {named!r} to call", "invalid_value", "tool_choice")
        if any(function.name in ("auto", "required") for function in functions):
            raise ApiError(400, "a tool must not be named 'auto' or 'required'", "invalid_value", "tools")
        try:
            return self.offered.tool_calls(
                [function.model_dump(exclude={"strict"}, exclude_none=True) for function in functions],
                named,
                parallel=body.parallel_tool_calls is not False,
                strict=any(function.strict for function in functions),
            )
        except Exception as error:
            raise refusal(error, "tools") from error

    def _form(self, body: ChatRequest) -> list[Any]:
        form = body.response_format
        if form is None or form.type == "text":
            return []
        try:
            if form.json_schema is None:
                return [self.offered.guide("json", {"kind": "object"})]
            asked = form.json_schema
            return [self.offered.guide("json-schema", {"schema": asked.schema_, "strict": asked.strict})]
        except Exception as error:
            raise refusal(error, "response_format") from error

    # Both together.

    def _requests(
        self, prompts: Sequence[list[int]], body: AnswerRequest, settings: dict[str, Any]
    ) -> list[Request]:
        if len(prompts) * body.n > self.settings.max_choices:
            raise ApiError(
                400,
                f"{len(prompts)} prompts times n = {body.n} are more than this server's limit of "
                f"{self.settings.max_choices} answers",
                "too_large",
                "n",
            )
        for prompt in prompts:
            self._check_length(len(prompt), "messages" if isinstance(body, ChatRequest) else "prompt")
        first_seed = settings.pop("seed", 0)
        try:
            made = [
                self.model.request(prompt, **settings, seed=first_seed + choice)
                for prompt in prompts
                for choice in range(body.n)
            ]
        except Exception as error:
            raise refusal(error, _guided_by(body)) from error
        if body.ventris.guarantee == "exact" and not made[0].guarantee().exact:
            raise ApiError(400, made[0].guarantee().statement, "no_such_guarantee", "ventris.guarantee")
        return made

    def _check_length(self, tokens: int, param: str) -> None:
        context = self.model.target.context_length
        limit = min(self.settings.max_prompt or context, context - 1)
        if tokens > limit:
            raise ApiError(
                400,
                f"the prompt has {tokens} tokens and may have {limit}; shorten it",
                "context_length_exceeded",
                param,
            )


def _guided_by(body: AnswerRequest) -> str | None:
    """The field that is to blame if a guide cannot be compiled."""
    if body.ventris.guides or not isinstance(body, ChatRequest):
        return None
    return "tools" if body.tools else "response_format" if body.response_format else None


def _plain_message(message: Message) -> dict[str, Any]:
    """A message as OpenAI's API has it, in plain values."""
    content = message.content
    if isinstance(content, list):
        content = "".join(part.text for part in content)
    plain: dict[str, Any] = {
        # Templates know the older name.
        "role": "system" if message.role == "developer" else message.role,
        "content": content or "",
    }
    if message.name is not None:
        plain["name"] = message.name
    if message.tool_calls:
        plain["tool_calls"] = [
            {"id": call.id, "type": "function", "function": call.function.model_dump()}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    return plain
