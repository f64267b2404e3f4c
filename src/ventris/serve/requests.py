"""The bodies that clients send, as pydantic models: OpenAI's fields, and Ventris' own under one key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_STOPS = 16
MOST_BIASES = 1024
MOST_WORDS = 64
LONGEST_WORD = 1000
LARGEST_SEED = 2**63 - 1

Text = Annotated[str, Field(max_length=LONGEST_WORD)]
Words = Annotated[list[Text], Field(max_length=MOST_WORDS)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Body(BaseModel):
    """A JSON object in which ``null`` is the same as nothing, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return {key: value for key, value in given.items() if value is not None}
        return given


class VentrisFields(Body):
    """What Ventris understands beyond OpenAI's fields.

    Parts are written as on the command line.
    """

    draft: Text | None = Field(None, description="a drafter that the server offers; 'none' for none")
    verifier: Text | None = Field(None, description="verifier; chosen to be exact when not given")
    policy: Text | None = Field(None, description="how much to draft")
    guides: list[dict[str, dict[str, Any]]] = Field(
        default_factory=list, max_length=4, description='guides, such as [{"regex": {"pattern": "[0-9]+"}}]'
    )
    guarantee: Literal["any", "exact"] = Field("any", description="'exact' refuses approximate parts")
    trace: bool = Field(False, description="tell every step: its tree, candidates and times")
    deadline: float | None = Field(None, gt=0, le=86_400, description="seconds until the answer is due")
    top_k: int | None = Field(None, ge=0, le=2**31 - 1)
    min_p: Number | None = Field(None, ge=0, le=1)
    typical_p: Number | None = Field(None, gt=0, le=1)
    repetition_penalty: Number | None = Field(None, ge=0.01, le=100)
    min_new_tokens: int | None = Field(None, ge=0, le=2**31 - 1)
    banned_words: Words | None = None
    forced_words: Words | None = None
    stop_ids: Annotated[list[TokenId], Field(max_length=MOST_WORDS)] | None = None
    ignore_eos: bool | None = Field(None, description="go on after the end token, for timing")


class StreamOptions(Body):
    """Details of a stream."""

    include_usage: bool = Field(False, description="end with a chunk that counts tokens")
    include_obfuscation: bool = Field(False, description="accepted and without effect")


class JsonSchemaFormat(Body):
    """A named schema."""

    name: str = Field("answer", max_length=64)
    description: str | None = None
    schema_: dict[str, Any] | bool = Field(True, alias="schema")
    strict: bool = Field(False, description="refuse a schema with rules that no mask can keep")


class ResponseFormat(Body):
    """The form that the answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _schema_where_needed(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to type 'json_schema', and to no other")
        return self


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    text: str


class FunctionCall(Body):
    """A function with its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(Body):
    """A call that the model asked for in an earlier turn."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Body):
    """A contribution to the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class Function(Body):
    """A function that the model may call."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    strict: bool = False


class Tool(Body):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    """The name of a function."""

    name: str


class ToolChoice(Body):
    """The function that must be called."""

    type: Literal["function"]
    function: NamedFunction


class AnswerRequest(Body):
    """What chat and plain completions have in common."""

    model: str = Field(max_length=4096)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(1, ge=1, le=128)
    max_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    temperature: Number | None = Field(None, ge=0, le=2)
    top_p: Number | None = Field(None, gt=0, le=1)
    stop: Text | Annotated[list[Text], Field(max_length=MOST_STOPS)] | None = None
    seed: int | None = Field(None, ge=-LARGEST_SEED, le=LARGEST_SEED)
    presence_penalty: Number | None = Field(None, ge=-2, le=2)
    frequency_penalty: Number | None = Field(None, ge=-2, le=2)
    logit_bias: (
        Annotated[dict[TokenId, Annotated[Number, Field(ge=-100, le=100)]], Field(max_length=MOST_BIASES)]
        | None
    ) = None
    user: str | None = Field(None, description="accepted and without effect")
    ventris: VentrisFields = Field(default_factory=lambda: VentrisFields.model_validate({}))

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> AnswerRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are for streams; set stream to true")
        return self


class ChatRequest(AnswerRequest):
    """The body of ``POST /v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1, max_length=4096)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = Field(None, description="accepted and without effect")
    store: Literal[False] | None = Field(None, description="nothing is stored")
    service_tier: Literal["auto", "default"] | None = Field(None, description="there is one")

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs set to true")
        return self


class CompletionRequest(AnswerRequest):
    """The body of ``POST /v1/completions``."""

    prompt: (
        str
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1)]
    )
    logprobs: int | None = Field(None, ge=0, le=20)
    best_of: int | None = Field(None, ge=1, le=128, description="only the value of n")
    echo: Literal[False] | None = Field(None, description="prompts are not sent back")
    suffix: Literal[""] | None = Field(None, description="there is no filling in")

    @model_validator(mode="after")
    def _best_of_is_n(self) -> CompletionRequest:
        if self.best_of not in (None, self.n):
            raise ValueError("best_of other than n is not supported")
        return self
