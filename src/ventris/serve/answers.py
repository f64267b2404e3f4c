"""From the engine's completions to the JSON values that OpenAI's clients read."""

from __future__ import annotations

import json
import math
import secrets
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from time import time
from typing import TYPE_CHECKING, Any, ClassVar

from ventris.engine.request import Completion, TokenLogprob
from ventris.serve.event_stream import event, to_json
from ventris.serve.job import Update
from ventris.trace_page.data import page_data, step_data

if TYPE_CHECKING:
    from ventris.guide.call_format import CallStream, ToolCall
    from ventris.guide.tool_calls import ToolCalls
    from ventris.models.tokenizer import Tokenizer

IMPOSSIBLE = -9999.0
"""What OpenAI writes for the logarithm of nothing, for which JSON has no number."""

MARK = "\ufdd0"
"""Stands for a text while the bytes around it are found; Unicode reserves it for such use."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TokenTexts:
    """How single tokens are written in answers.

    Args:
        tokenizer: ``None`` writes ids.
        ends: Tokens that end a text; they are no part of an answer.
        silent: Tokens that add nothing to a text.
    """

    tokenizer: Tokenizer | None
    ends: frozenset[int]
    silent: frozenset[int]

    def data(self, token: int) -> bytes:
        """The token's bytes."""
        return b"" if self.tokenizer is None else self.tokenizer.token_bytes(token)

    def text(self, token: int) -> str:
        """The token's text, with U+FFFD for parts of characters."""
        return f"#{token}" if self.tokenizer is None else self.data(token).decode("utf-8", "replace")


@dataclass(eq=False)
class Answer(ABC):
    """One response, whole or in chunks.

    Args:
        model: The model's name for clients.
        texts: How tokens are written.
        fingerprint: Changes when answers to the same request may change.
        traced: Whether the client asked for a trace.
        tools: Reads calls out of the text, where the answer may have some.
    """

    object: ClassVar[str]
    chunk_object: ClassVar[str]
    prefix: ClassVar[str]

    model: str
    texts: TokenTexts
    fingerprint: str
    traced: bool
    tools: ToolCalls | None = None
    id: str = field(init=False)
    created: int = field(init=False)
    _around: dict[int, tuple[bytes, bytes]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.id = f"{self.prefix}-{secrets.token_hex(12)}"
        self.created = int(time())

    # Whole.

    def whole(self, completions: Sequence[Completion]) -> Json:
        """The response with all choices."""
        return {
            **self._head(self.object),
            "choices": [self._choice(index, completion) for index, completion in enumerate(completions)],
            "usage": usage(completions),
            "ventris": [self._facts(completion) for completion in completions],
        }

    @abstractmethod
    def _choice(self, index: int, completion: Completion) -> Json: ...

    # In chunks.

    @abstractmethod
    def opening(self, choices: int) -> list[Json]:
        """Chunks before the first token."""

    def chunk(self, update: Update) -> Json | None:
        """A chunk for a piece of news; ``None`` where there is nothing to say."""
        if not (update.text or update.logprobs or update.finished or update.step):
            return None
        finish = update.completion.finish_reason if update.finished else None
        chunk = {**self._head(self.chunk_object), "choices": [self._delta(update, finish)]}
        own: Json = {}
        if self.traced:
            own["tokens"] = [
                {"text": self.texts.text(token), "source": source}
                for token, source in zip(update.tokens, update.sources, strict=True)
                if token not in self.texts.silent
            ]
            if update.step is not None:
                own["step"] = step_data(update.step, update.tokens, self.texts.tokenizer)
        if update.finished:
            own |= self._facts(update.completion, with_trace=False)
        return {**chunk, "ventris": own} if own else chunk

    def encoded(self, update: Update) -> bytes | None:
        """The event of a piece of news.

        Of a plain piece of text only the text is encoded anew: while it is, a computing thread waits.
        """
        if not self._is_plain(update):
            chunk = self.chunk(update)
            return None if chunk is None else event(chunk)
        if update.index not in self._around:
            sample = self.chunk(Update(update.index, update.completion, text=MARK))
            before, _, after = event(sample).partition(to_json(MARK))
            self._around[update.index] = before, after
        before, after = self._around[update.index]
        return before + to_json(update.text) + after

    def _is_plain(self, update: Update) -> bool:
        """True if its chunk differs from that of other plain ones in the text alone."""
        special = update.finished or self.traced or self.tools is not None
        return bool(update.text) and not special and update.completion.logprobs is None

    def usage_chunk(self, completions: Sequence[Completion]) -> Json:
        """The last chunk, which counts tokens."""
        return {**self._head(self.chunk_object), "choices": [], "usage": usage(completions)}

    @abstractmethod
    def _delta(self, update: Update, finish: str | None) -> Json: ...

    # What both have.

    def _head(self, kind: str) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def _facts(self, completion: Completion, with_trace: bool = True) -> Json:
        """What Ventris says of an answer beyond OpenAI's fields."""
        stats = completion.stats
        facts: Json = {
            "guarantee": asdict(completion.guarantee) if completion.guarantee is not None else None,
            "stats": {
                "steps": stats.steps,
                "drafted": stats.drafted,
                "accepted": stats.accepted,
                "proposed_by_depth": list(stats.proposed_by_depth),
                "accepted_by_depth": list(stats.accepted_by_depth),
                "tokens_per_step": stats.tokens_per_step,
                "tokens_per_second": stats.tokens_per_second,
                "first_token_seconds": stats.first_token_seconds,
                "total_seconds": stats.total_seconds,
            },
        }
        if completion.valid is not None:
            facts["valid"] = completion.valid
        if self.traced and with_trace:
            facts["trace"] = page_data(completion, self.texts.tokenizer)
        return facts

    def _shown(self, scored: Sequence[TokenLogprob]) -> list[TokenLogprob]:
        return [entry for entry in scored if entry.token not in self.texts.ends]


@dataclass(eq=False)
class ChatAnswer(Answer):
    """The response of ``/v1/chat/completions``."""

    object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    prefix = "chatcmpl"

    _streams: dict[int, CallStream] = field(default_factory=dict, init=False)
    _calls: Counter[int] = field(default_factory=Counter, init=False)

    def _choice(self, index: int, completion: Completion) -> Json:
        message: Json = {"role": "assistant", "content": completion.text, "refusal": None}
        finish: str | None = completion.finish_reason
        if self.tools is not None:
            answer = self.tools.read(completion.text)
            if answer.calls:
                message["content"] = answer.content or None
                message["tool_calls"] = self._written(index, answer.calls)
                finish = "tool_calls" if finish == "stop" else finish
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(completion.logprobs),
            "finish_reason": finish,
        }

    def _written(self, index: int, calls: Sequence[ToolCall]) -> list[Json]:
        """Calls as OpenAI writes them; their ids are those of the answer with their number behind it."""
        first = self._calls[index]
        self._calls[index] += len(calls)
        return [
            {
                "id": f"call_{self.id.rpartition('-')[2]}_{index}_{number}",
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": json.dumps(call.arguments, ensure_ascii=False),
                },
            }
            for number, call in enumerate(calls, first)
        ]

    def opening(self, choices: int) -> list[Json]:
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [
            {
                **self._head(self.chunk_object),
                "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}],
            }
            for index in range(choices)
        ]

    def _delta(self, update: Update, finish: str | None) -> Json:
        scored = update.logprobs if update.completion.logprobs is not None else None
        delta: Json = {"content": update.text} if update.text or not finish else {}
        if self.tools is not None:
            delta, finish = self._delta_with_calls(self.tools, update, finish)
        return {
            "index": update.index,
            "delta": delta,
            "logprobs": self._logprobs(scored) if scored else None,
            "finish_reason": finish,
        }

    def _delta_with_calls(
        self, tools: ToolCalls, update: Update, finish: str | None
    ) -> tuple[Json, str | None]:
        """Text as soon as it cannot begin a call, and calls when they are whole."""
        stream = self._streams.setdefault(update.index, tools.stream())
        found = list(stream.push(update.text))
        if update.finished:
            found += stream.finish()
        delta: Json = {}
        if text := "".join(item for item in found if isinstance(item, str)):
            delta["content"] = text
        first = self._calls[update.index]
        if calls := [item for item in found if not isinstance(item, str)]:
            written = self._written(update.index, calls)
            delta["tool_calls"] = [{"index": n, **call} for n, call in enumerate(written, first)]
        if finish == "stop" and self._calls[update.index]:
            finish = "tool_calls"
        return delta, finish

    def _logprobs(self, scored: Sequence[TokenLogprob] | None) -> Json | None:
        if scored is None:
            return None
        return {
            "content": [
                {
                    **self._scored(entry.token, entry.logprob),
                    "top_logprobs": [self._scored(token, value) for token, value in entry.top],
                }
                for entry in self._shown(scored)
            ],
            "refusal": None,
        }

    def _scored(self, token: int, logprob: float) -> Json:
        return {
            "token": self.texts.text(token),
            "logprob": _number(logprob),
            "bytes": list(self.texts.data(token)),
        }


@dataclass(eq=False)
class TextAnswer(Answer):
    """The response of ``/v1/completions``."""

    object = "text_completion"
    chunk_object = "text_completion"
    prefix = "cmpl"

    _length: dict[int, int] = field(default_factory=dict, init=False)

    def _choice(self, index: int, completion: Completion) -> Json:
        return {
            "index": index,
            "text": completion.text,
            "logprobs": self._logprobs(index, completion.logprobs),
            "finish_reason": completion.finish_reason,
        }

    def opening(self, choices: int) -> list[Json]:
        return []

    def _delta(self, update: Update, finish: str | None) -> Json:
        scored = update.logprobs if update.completion.logprobs is not None else None
        return {
            "index": update.index,
            "text": update.text,
            "logprobs": self._logprobs(update.index, scored) if scored else None,
            "finish_reason": finish,
        }

    def _logprobs(self, index: int, scored: Sequence[TokenLogprob] | None) -> Json | None:
        if scored is None:
            return None
        tokens, offsets = [], []
        place = self._length.get(index, 0)
        for entry in self._shown(scored):
            text = self.texts.text(entry.token)
            tokens.append(text)
            offsets.append(place)
            place += len(text)
        self._length[index] = place
        return {
            "tokens": tokens,
            "token_logprobs": [_number(entry.logprob) for entry in self._shown(scored)],
            "top_logprobs": [
                {self.texts.text(token): _number(value) for token, value in entry.top}
                for entry in self._shown(scored)
            ],
            "text_offset": offsets,
        }


def usage(completions: Sequence[Completion]) -> Json:
    """Tokens read and written; a prompt that several choices share counts once."""
    prompts = {tuple(completion.prompt): completion.stats for completion in reversed(completions)}
    read = sum(map(len, prompts))
    written = sum(len(completion.tokens) for completion in completions)
    accepted = sum(completion.stats.accepted for completion in completions)
    drafted = sum(completion.stats.drafted for completion in completions)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": sum(stats.reused_tokens for stats in prompts.values())},
        "completion_tokens_details": {
            "accepted_prediction_tokens": accepted,
            "rejected_prediction_tokens": drafted - accepted,
        },
    }


def _number(value: float) -> float:
    return value if math.isfinite(value) else IMPOSSIBLE
