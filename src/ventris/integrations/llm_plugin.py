"""A plugin for Simon Willison's ``llm`` command (package ``llm``).

llm install ventris
llm -m ventris "Explain hash tables." -o draft ngram
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import llm
from pydantic import Field

from ventris.models.embedded import EMBEDDED_NAME

if TYPE_CHECKING:
    from ventris.model import Model

LOADING = ("model", "dtype", "device", "threads")


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Tell ``llm`` that there is a model; it is loaded when it is asked first."""
    register(VentrisModel())


class VentrisModel(llm.Model):
    """Any model that Ventris loads; the option ``model`` names it."""

    model_id = "ventris"
    can_stream = True
    supports_schema = True

    class Options(llm.Options):
        """``-o NAME VALUE``; names are those of ``ventris generate``."""

        model: str = Field(EMBEDDED_NAME, description="embedded name, hub id, folder or .gguf file")
        dtype: str = Field("auto", description="weights: auto, float32, bfloat16, int8, int4")
        device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
        threads: int | None = Field(None, description="CPU threads")
        draft: str | None = Field(None, description="drafters by priority, such as ngram")
        max_new_tokens: int | None = Field(None, description="longest answer")
        temperature: float | None = Field(None, description="0 for greedy decoding")
        top_k: int | None = Field(None, description="keep the k most probable tokens")
        top_p: float | None = Field(None, description="keep the most probable tokens up to this mass")
        seed: int | None = Field(None, description="start of the random stream")

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.Response,
        conversation: llm.Conversation | None,
    ) -> Iterator[str]:
        """Answer piece by piece; facts about the answer go into ``llm``'s log."""
        given = prompt.options.model_dump(exclude_none=True)
        model = _loaded(*(given.pop(name, None) for name in LOADING))
        if prompt.schema:
            from ventris.guide import JsonSchema

            given["guides"] = [JsonSchema(prompt.schema)]
        completion = None
        for piece in model.stream(_messages(prompt, conversation), **given):
            completion = piece.completion
            yield piece.text
        assert completion is not None  # a request always ends with an event
        response.set_usage(input=completion.stats.prompt_tokens, output=len(completion.tokens))
        response.response_json = {
            "finish_reason": completion.finish_reason,
            "guarantee": completion.guarantee.statement if completion.guarantee else None,
            "tokens_per_second": completion.stats.tokens_per_second,
            "tokens_per_step": completion.stats.tokens_per_step,
        }


def _messages(prompt: llm.Prompt, conversation: llm.Conversation | None) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    system = prompt.system
    for earlier in conversation.responses if conversation is not None else ():
        system = system or earlier.prompt.system
        said.append({"role": "user", "content": earlier.prompt.prompt})
        said.append({"role": "assistant", "content": earlier.text_or_raise()})
    first = [{"role": "system", "content": system}] if system else []
    return [*first, *said, {"role": "user", "content": prompt.prompt}]


@lru_cache(maxsize=1)
def _loaded(name: str, dtype: Any, device: str, threads: int | None) -> Model:
    """The model, kept for the next turn of a chat."""
    from ventris.model import load

    return load(name, dtype, "auto", device, threads)
