"""A loaded model: generate, stream, chat, score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from threading import RLock
from typing import TYPE_CHECKING, Any

from ventris.byte_size import read_bytes
from ventris.cost.batch_latency import BatchLatency
from ventris.cost.curve import CostCurve
from ventris.cost.measured import measured_curve, measured_latency
from ventris.engine.batch import Engine, Event
from ventris.engine.errors import BadInput
from ventris.engine.footprint import weight_bytes
from ventris.engine.ledger import MemoryLedger
from ventris.engine.request import Completion, Request, check_parts
from ventris.engine.sampling import Sampling
from ventris.engine.score import score_continuation
from ventris.engine.target import Target
from ventris.engine.trace import Trace
from ventris.further_models import FurtherModels
from ventris.options import GenerationOptions, read_generation_options
from ventris.parts import Workshop, build_drafter, build_guides, build_one
from ventris.prompts import Prompt, encode, is_batch, read_prompt, spellings

if TYPE_CHECKING:
    from ventris.guide.call_format import ToolAnswer
    from ventris.guide.tool_calls import ToolCalls
    from ventris.models.load import DType, Kernels
    from ventris.models.source import ModelSource
    from ventris.models.tokenizer import Tokenizer
    from ventris.prompts import PromptLike

EMBEDDED_MODEL = "smollm2-135m-instruct"
"""The model that comes with Ventris."""

PROMPT_CHUNK = 128
"""Prompt tokens read in one step, so that a long prompt does not hold up requests that decode."""

PREFIX_BYTES = 256 * 1024 * 1024
"""Memory that finished requests' caches may keep for later prompts."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of streamed output.

    Attributes:
        text: New text.
        tokens: Its token ids, with ``sources`` naming the part each one came from.
        completion: Everything so far; final once ``finished``.
    """

    text: str
    tokens: list[int]
    sources: list[str]
    completion: Completion
    finished: bool


def load(
    name: str = EMBEDDED_MODEL,
    dtype: DType = "auto",
    kernels: Kernels = "auto",
    device: str = "auto",
    threads: int | None = None,
    progress: Callable[..., None] | None = None,
    context_length: int | None = None,
    memory_budget: int | str | None = None,
    stages: int = 1,
    rendezvous: str | None = None,
    second_layers: int | None = None,
) -> Model:
    """Load a model by name.

    Args:
        name: ``"smollm2-135m-instruct"`` (embedded), a hub id, a folder with safetensors, or a ``.gguf``.
        dtype: ``"auto"``, ``"float32"``, ``"bfloat16"``, ``"int8"`` or ``"int4"`` (a GGUF's own blocks).
        kernels: ``"native"`` (C++ on CPU), ``"torch"``, or ``"auto"``.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        threads: CPU threads; all available ones by default.
        progress: Told what happens and how far it is.
        context_length: Longest text in tokens; that of the checkpoint by default. Draft models keep theirs.
        memory_budget: Most that weights, caches and passes may take, in bytes or as ``"330MB"``; of each of
            two processes.
        stages: 2 divides the layers between this process and another one, on the torch runtime.
        rendezvous: ``"HOST:PORT"`` of this machine, where ``ventris stage HOST:PORT`` on another one
            joins; by default the second process is started on this machine.
        second_layers: Layers of the second process; by default both hold about the same bytes.

    Raises:
        BadInput: one line that says what is wrong with the name or the file, and what to do.
        StageLost: if the second process does not start.
    """
    from ventris.models.load import load_decoder
    from ventris.models.split.plan import read_split

    split = read_split(stages, rendezvous, second_layers)
    target, tokenizer, source = load_decoder(
        name, dtype, kernels, device, threads, progress, context_length, split
    )
    again = partial(load_decoder, kernels=kernels, device=device, threads=threads, progress=progress)
    return Model(target, tokenizer, source, again, memory_budget)


class Model:
    """A target with its tokenizer.

    Args:
        target: The model that decides.
        tokenizer: Its tokenizer; without one, prompts are token ids and outputs have no text.
        source: Where it came from.
        load_further: Loads draft models; ``load_decoder`` with the settings of this model.
        memory_budget: Most that weights, caches and passes may take together, in bytes or as ``"330MB"``.
            Within it drafts become fewer, then there are none; a request that cannot fit is refused.

    Raises:
        BadInput: if the budget is no size, or the weights alone pass it.
    """

    def __init__(
        self,
        target: Target,
        tokenizer: Tokenizer | None = None,
        source: ModelSource | None = None,
        load_further: Callable[..., tuple[Target, Any, Any]] | None = None,
        memory_budget: int | str | None = None,
    ) -> None:
        self.memory_budget = None if memory_budget is None else read_bytes(memory_budget)
        _check_weights(target, self.memory_budget)
        self.target = target
        self.tokenizer = tokenizer
        self.source = source
        self._further = FurtherModels(target, tokenizer, load_further)
        self._shared: dict[str, Any] = {}
        self._building = RLock()

    # Text in, text out.

    def generate(self, prompt: Any, max_batch: int = 8, **settings: Any) -> Any:
        """Decode one prompt, or several side by side.

        Args:
            prompt: Text, token ids, chat messages, or a :class:`Prompt`; or a list of such prompts.
            max_batch: Prompts decoded at the same time.
            settings: See :class:`ventris.options.GenerationOptions`.

        Returns:
            A :class:`~ventris.engine.request.Completion`, or a list of them in the order of the prompts.

        Raises:
            BadInput, Incompatible: before anything is decoded.
            VentrisError, MemoryError: if the decoding of a single prompt fails; in a list, the failed one
                has ``finish_reason == "error"`` and the others are complete.
        """
        single = not is_batch(prompt)
        prompts = [prompt] if single else list(prompt)
        engine = self.engine(max_batch=max_batch)
        completions = [engine.add(self.request(p, **settings)) for p in prompts]
        try:
            for _ in engine.run():
                pass
        finally:
            engine.close()
        if not single:
            return completions
        _raise_failure(completions[0])
        return completions[0]

    def stream(self, prompt: Any, **settings: Any) -> Iterator[Piece]:
        """Decode one prompt and yield pieces of text as they come.

        Closing the iterator ends the request and frees its memory.

        Raises:
            As :meth:`generate`.
        """
        engine = self.engine(max_batch=1)
        engine.add(self.request(prompt, **settings))
        return self._pieces(engine)

    @staticmethod
    def _pieces(engine: Engine) -> Iterator[Piece]:
        try:
            for event in engine.run():
                yield from _piece(event)
        finally:
            engine.close()

    def chat(self, **settings: Any) -> Chat:
        """A conversation that keeps its history in the cache between turns."""
        return Chat(self, settings)

    def score(self, prompt: PromptLike, continuation: str | Sequence[int], **settings: Any) -> list[float]:
        """Log-probability of every token of a continuation, through penalties and guides.

        Args:
            prompt: As for :meth:`generate`.
            continuation: Text or token ids.
            settings: Of these, penalties, biases and guides count.
        """
        request = self.request(prompt, **{**settings, "raw": settings.get("raw", isinstance(prompt, str))})
        given = encode(self.tokenizer, continuation) if isinstance(continuation, str) else continuation
        tokens = list(given)
        if not tokens:
            raise BadInput("the continuation is empty; there is nothing to score")
        return score_continuation(self.target, request, tokens)

    # The parts beneath.

    def engine(
        self,
        max_batch: int = 8,
        ledger: MemoryLedger | None = None,
        prefix_bytes: int = 0,
        chunk: int = PROMPT_CHUNK,
    ) -> Engine:
        """An engine on this model, for callers that run their own loop; within the model's memory budget.

        Args:
            ledger: Another one than the books of the memory budget.
        """
        detokenizer = None
        if self.tokenizer is not None:
            from ventris.models.tokenizer import TextStream

            detokenizer = partial(TextStream, self.tokenizer)
        if ledger is None:
            ledger = MemoryLedger(self.memory_budget, counts_weights=self.memory_budget is not None)
        return Engine(self.target, max_batch, chunk, ledger, prefix_bytes, detokenizer)

    def request(self, prompt: Any, **settings: Any) -> Request:
        """A checked request for this model.

        Raises:
            BadInput, Incompatible: one line that names the setting or the parts.
        """
        if isinstance(prompt, Prompt):
            settings = {**settings, **prompt.settings}
            prompt = prompt.text
        options = read_generation_options(settings)
        check_settings(options)
        tools = _tools(options, self.tokenizer)
        tokens, embeddings, spans = read_prompt(prompt, self.tokenizer, options.raw, tools)
        sampling = Sampling(
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
            typical_p=options.typical_p,
            repetition_penalty=options.repetition_penalty,
            presence_penalty=options.presence_penalty,
            frequency_penalty=options.frequency_penalty,
            logit_bias=options.logit_bias,
            banned=[ids for word in options.banned_words for ids in spellings(self.tokenizer, word)],
            forced=[encode(self.tokenizer, word) for word in options.forced_words],
            min_new_tokens=options.min_new_tokens,
            seed=options.seed,
        )
        drafter = self._part("draft", options.draft, lambda: build_drafter(options.draft, self.workshop))
        verifier = options.verifier or default_verifier(drafter, sampling)
        policy = options.policy or ("goodput" if drafter is not None else "fixed")
        ends = set(options.stop_ids)
        if self.tokenizer is not None and not options.ignore_eos:
            ends |= set(self.tokenizer.eos_ids)
        return Request(
            prompt=tokens,
            verifier=self._part("verifier", verifier, lambda: build_one("verifier", verifier, self.workshop)),
            policy=self._part("policy", policy, lambda: build_one("policy", policy, self.workshop)),
            max_new_tokens=options.max_new_tokens,
            sampling=sampling,
            drafter=drafter,
            guides=build_guides(tools, self.workshop) + build_guides(options.guides, self.workshop),
            end_ids=frozenset(ends),
            stop=options.stop,
            logprobs=options.logprobs,
            trace=self._trace() if options.trace else None,
            embeddings=embeddings,
            spans=spans,
        )

    @cached_property
    def workshop(self) -> Workshop:
        """What parts are built with."""
        return Workshop(self.target, self.further_model, self.cost_curve, self.tokenizer, self.batch_latency)

    def cost_curve(
        self, again: bool = False, progress: Callable[[str, float | None], None] | None = None
    ) -> CostCurve:
        """T(n) of this model on this machine: measured once, then read from the cache folder."""
        key = self.source.fingerprint if self.source is not None else None
        return measured_curve(self.target, key, again, progress)

    def batch_latency(self, again: bool = False) -> BatchLatency:
        """T(nodes, context) of this model on this machine, kept like the curve that it extends."""
        key = self.source.fingerprint if self.source is not None else None
        return measured_latency(self.target, key, self.cost_curve(again), again)

    def _part(self, kind: str, spec: Any, make: Callable[[], Any]) -> Any:
        """A part built once and shared by all requests that name it alike, so that they batch."""
        if not isinstance(spec, str):
            return make()
        key = f"{kind} {spec}"
        # A server asks from several threads; a part built twice would not batch with itself.
        with self._building:
            if key not in self._shared:
                self._shared[key] = make()
            return self._shared[key]

    def _trace(self) -> Trace:
        summarize = getattr(self.target, "most_probable", None)
        return Trace(summarize=summarize) if summarize else Trace()

    def further_model(self, name: str, dtype: DType = "auto", any_size: bool = False) -> Target:
        """A draft model, or one that a guide asks, beside this one; loaded once.

        Args:
            any_size: It may score more or fewer tokens than this one, as models of one family may.

        Raises:
            BadInput: if it cannot be loaded, or has another vocabulary.
        """
        return self._further.get(name, dtype, any_size)

    def read_calls(self, text: str) -> ToolAnswer:
        """An answer under ``tools`` taken apart: text for the reader, and calls."""
        from ventris.guide.call_format import read_calls, style_of

        return read_calls(text, style_of(self.tokenizer))


class Chat:
    """A conversation; every turn reuses the cache rows of the turns before it."""

    def __init__(self, model: Model, settings: Mapping[str, Any]) -> None:
        self.model = model
        self.settings = dict(settings)
        self.messages: list[dict[str, Any]] = []
        if system := self.settings.pop("system", None):
            self.messages.append({"role": "system", "content": system})
        self._engine = model.engine(max_batch=1, prefix_bytes=PREFIX_BYTES)
        self._open: Completion | None = None

    def stream(self, text: str, **settings: Any) -> Iterator[Piece]:
        """Say something and yield the answer piece by piece; both join the history.

        An answer that is broken off joins the history as far as it came. Saying something ends an answer
        that is still open: one whose iterator was neither used up nor closed, or whose end was interrupted.
        """
        self._end_open()
        messages = [*self.messages, {"role": "user", "content": text}]
        request = self.model.request(messages, **{**self.settings, **settings})
        completion = self._open = self._engine.add(request)
        return self._answer(messages, completion)

    def _answer(self, messages: list[dict[str, Any]], completion: Completion) -> Iterator[Piece]:
        try:
            while self._engine.busy and completion is self._open:
                for event in self._engine.step():
                    yield from _piece(event)
        finally:
            self._engine.cancel(completion)
            if completion.error is None and completion is self._open:
                self.messages = [*messages, {"role": "assistant", "content": completion.text}]

    def say(self, text: str, **settings: Any) -> Completion:
        """Say something and return the whole answer."""
        completion: Completion | None = None
        for piece in self.stream(text, **settings):
            completion = piece.completion
        assert completion is not None  # a request always ends with an event
        return completion

    def reset(self) -> None:
        """Forget the conversation, except for the system message; an answer that is open ends."""
        self._end_open()
        self.messages = [message for message in self.messages[:1] if message["role"] == "system"]
        self._engine.prefixes.clear()

    def _end_open(self) -> None:
        if self._open is not None:
            self._engine.cancel(self._open)
            self._open = None


def _check_weights(target: Target, budget: int | None) -> None:
    weights = weight_bytes([target])
    if budget is not None and weights > budget:
        raise BadInput(
            f"the weights take {weights:,} bytes and the memory budget is {budget:,}; "
            "raise it, or load the model in fewer bits"
        )


def default_verifier(drafter: Any, sampling: Sampling) -> str:
    """The exact verifier that keeps most drafts: greedy, rejection for drawn drafts, else coupled."""
    if sampling.greedy:
        return "greedy"
    return "rejection" if drafter is not None and drafter.draws else "coupled"


def check_settings(options: GenerationOptions) -> None:
    """Refuse combinations of parts that cannot work, before a model is loaded.

    Raises:
        BadInput, Incompatible.
    """
    preview = Workshop()
    sampling = Sampling(temperature=options.temperature)
    drafter = build_drafter(options.draft, preview)
    verifier = build_one("verifier", options.verifier or default_verifier(drafter, sampling), preview)
    policy = build_one("policy", options.policy or "fixed", preview)
    guides = [_tools(options), *build_guides(options.guides, preview)]
    check_parts(drafter, verifier, [guide for guide in guides if guide is not None], policy, sampling)


def _tools(options: GenerationOptions, tokenizer: Tokenizer | None = None) -> ToolCalls | None:
    """The guide for calls of tools, if there are any."""
    if options.tools is None:
        if "tool_choice" in options.model_fields_set:
            raise BadInput("tool_choice needs tools to choose from")
        return None
    from ventris.guide.call_format import style_of
    from ventris.guide.tool_calls import ToolCalls

    return ToolCalls(options.tools, options.tool_choice, style=style_of(tokenizer))


def _raise_failure(completion: Completion) -> None:
    if completion.exception is not None:
        raise completion.exception


def _piece(event: Event) -> Iterator[Piece]:
    """An event's piece; one that brings a failure raises it behind what it brings besides."""
    if event.tokens or event.text or event.completion.exception is None:
        yield Piece(event.text, event.tokens, event.sources, event.completion, event.finished)
    _raise_failure(event.completion)
