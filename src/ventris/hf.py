"""Ventris under transformers' own ``generate``, for people who keep their own code.

    model.generate(**inputs, custom_generate=ventris.hf_generate, draft="ngram", max_new_tokens=100)

transformers prepares inputs, logits processors and stopping criteria as always; only the decoding loop is
ours. Its processors, warpers included, run as the last guide: they are asked once for every kept prefix, in
order, and never about a draft that was refused. So a processor with a memory stays right under drafting.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor
from transformers.generation.configuration_utils import GenerationConfig
from transformers.generation.logits_process import (
    EpsilonLogitsWarper,
    LogitsProcessorList,
    MinPLogitsWarper,
    PrefixConstrainedLogitsProcessor,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
from transformers.generation.stopping_criteria import (
    EosTokenCriteria,
    MaxLengthCriteria,
    StoppingCriteriaList,
)
from transformers.generation.utils import GenerateDecoderOnlyOutput, GenerationMixin

from ventris.cost.curve import CostCurve, measure
from ventris.draft import DraftModel, Stack
from ventris.engine.errors import BadInput, Incompatible
from ventris.engine.parts import NodeView, RequestView
from ventris.engine.request import Request
from ventris.engine.target import Rows, Scores, Target
from ventris.model import Model
from ventris.models.load import load_decoder
from ventris.models.transformers_adapter import TransformersTarget
from ventris.parts import build_drafter, build_guides

WARPERS = (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TopHLogitsWarper,
    MinPLogitsWarper,
    TypicalLogitsWarper,
    EpsilonLogitsWarper,
)
"""Processors that look at nothing but a row of scores."""

MODES = ("greedy_search", "sample", "assisted_generation")

CURVE_SIZES = (1, 2, 4, 8, 16, 32)
"""A rough cost curve: it is measured during somebody's first call."""

# Arguments that generate() prepares for its own loop, and that say nothing which ours does not know.
PREPARED = {"attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep"}


def hf_generate(
    model: Any,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    synced_gpus: bool = False,
    streamer: Any = None,
    draft: Any = None,
    draft_model: Any = None,
    verifier: Any = None,
    policy: Any = None,
    guides: Any = None,
    seed: int | None = None,
    **model_kwargs: Any,
) -> Tensor | GenerateDecoderOnlyOutput:
    """Decode for ``model.generate(..., custom_generate=ventris.hf_generate)``.

    The arguments up to ``streamer`` come from ``generate``; the following ones are given to it. A row ends
    where one of its stopping criteria fires, at an end token, or at the model's context. In a batch every row
    has copies of the processors and criteria, which see its own prefix in every row and answer for its own.

    Args:
        draft: Drafters by name, or a drafter, as in :meth:`ventris.Model.generate`.
        draft_model: A smaller transformers model with the same vocabulary; asked where ``draft`` is silent.
            An ``assistant_model`` of ``generate`` is taken for it.
        verifier: The verifier; an exact one when not given.
        policy: How much to draft; ``"goodput"`` when not given, which times the model on first use.
        guides: Guides by name, or guides; applied before transformers' processors.
        seed: Row i draws with ``seed + i``; by default torch's global generator is asked for a seed.

    Raises:
        BadInput, Incompatible: before anything is decoded, for what cannot be done.
        Exception: what a processor or the model raised while a row was decoded.
    """
    # transformers 5 does not hand these three on to a callable, though it lets them be given.
    if streamer is None:
        streamer = _argument_of_generate("streamer")
    if draft_model is None:
        draft_model = _argument_of_generate("assistant_model")
    _refuse_settings(generation_config, synced_gpus or _argument_of_generate("synced_gpus"))
    if streamer is not None and len(input_ids) > 1:
        raise BadInput(f"a streamer shows one text, but the batch has {len(input_ids)} rows")
    prompts = _prompts(input_ids, model_kwargs)
    limit = stopping_criteria.max_length or generation_config.max_length
    ends = [token for c in stopping_criteria if isinstance(c, EosTokenCriteria) for token in c.eos_token_id]
    target = wrap(model)
    warps = [processor for processor in logits_processor if type(processor) in WARPERS]
    sampled = bool(generation_config.do_sample)
    if sampled and seed is None:
        seed = int(torch.randint(1 << 62, ()))
    settings = {
        "draft": _drafter(target, draft, draft_model, warps if sampled else []),
        "verifier": verifier,
        "policy": policy,
        "temperature": 1.0 if sampled else 0.0,
        "max_new_tokens": max(1, limit - input_ids.shape[1]) if limit else target.target.context_length,
        "stop_ids": [int(token) for token in ends],
    }
    own_guides = build_guides(guides, target.workshop)
    rows = [
        _Row(input_ids, index, logits_processor, stopping_criteria, generation_config)
        for index in range(len(prompts))
    ]
    requests = [
        target.request(prompt, **settings, seed=(seed or 0) + index, guides=row.around(own_guides))
        for index, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
    ]
    _refuse_records(rows[0], requests[0])
    _decode(target, requests, rows, streamer)
    return _output(input_ids, rows, generation_config, settings["stop_ids"])


# ------------------------------------------------------------------------------------- one row's guide


class _Row:
    """transformers' processors and criteria for one row, and what they made of it.

    It is a guide and that guide's state at once, since a row is one request.
    """

    name = "transformers' logits processors"
    masks = True

    def __init__(
        self,
        input_ids: Tensor,
        index: int,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        config: GenerationConfig,
    ) -> None:
        self.index = index
        self.batch = len(input_ids)
        self.ids = input_ids[index]
        self.tokens: list[int] = []
        self.length: int | None = None
        recording = config.return_dict_in_generate
        self.scores: list[Tensor] | None = [] if recording and config.output_scores else None
        self.raw = _Raw() if recording and config.output_logits else None
        self._prompt_length = len(self.ids)
        self._processors = [self._own(processor) for processor in processors]
        self._criteria = StoppingCriteriaList(
            self._own(c) for c in criteria if not isinstance(c, MaxLengthCriteria | EosTokenCriteria)
        )

    def around(self, guides: Sequence[Any]) -> list[Any]:
        """The given guides with those that this row needs, of the simplest kind that does it."""
        raw = [] if self.raw is None else [self.raw]
        if self._criteria or self.scores is not None:
            return [*raw, *guides, self]
        if all(type(processor) in WARPERS for processor in self._processors):
            return [*raw, *guides, *([_Warps(self._processors)] if self._processors else [])]
        return [*raw, *guides, self]

    def start(self, request: RequestView) -> _Row:
        return self

    def adjust(self, logits: Tensor, view: NodeView) -> Tensor:
        if self.length is not None:
            # What the verifier still takes in this step is cut off.
            return logits
        scores = logits.to(self.ids.device, torch.float32)[None]
        for processor in self._processors:
            if type(processor) in (*WARPERS, PrefixConstrainedLogitsProcessor):
                scores = processor(self.ids[None], scores)
            else:
                scores = processor(self._in_every_row(self.ids), self._in_every_row(scores[0]))
                scores = scores[self.index, None]
        if self.scores is not None:
            self.scores.append(scores[0].clone())
        return scores[0].cpu()

    def advance(self, token: int) -> None:
        if self.length is not None:
            return
        self.ids = torch.cat([self.ids, self.ids.new_tensor([token])])
        if self._criteria:
            scores = None if self.scores is None else tuple(map(self._in_every_row, self.scores))
            fired = self._criteria(self._in_every_row(self.ids), scores)
            if bool(fired[self.index]):
                self.length = len(self.ids) - self._prompt_length

    @property
    def kept(self) -> list[int]:
        """The output up to the token at which a criterion fired."""
        return cast(list[int], self.ids[self._prompt_length :].tolist())

    def _in_every_row(self, row: Tensor) -> Tensor:
        # Some processors look up things by the row's number, so it must stand at its own place.
        return row.expand(self.batch, -1).clone()

    def _own(self, part: Any) -> Any:
        """A processor or criterion that serves this row alone."""
        if self.batch == 1 or type(part) in WARPERS:
            return part
        if isinstance(part, PrefixConstrainedLogitsProcessor):
            allowed, index = part._prefix_allowed_tokens_fn, self.index
            return PrefixConstrainedLogitsProcessor(lambda _, ids: allowed(index, ids), 1)
        # Models stay shared: classifier-free guidance, for one, holds the model itself.
        shared = {id(v): v for v in getattr(part, "__dict__", {}).values() if isinstance(v, torch.nn.Module)}
        try:
            return deepcopy(part, shared)
        except Exception as error:
            raise Incompatible(
                type(part).__name__, "a batch", f"every row needs a copy of it, which failed ({error})"
            ) from error


class _Warps:
    """Warpers alone: they remember nothing, so they can be asked about any prefix."""

    name = "transformers' warpers"
    masks = True
    forkable = True

    def __init__(self, warpers: Sequence[Any]) -> None:
        self.warpers = warpers

    def start(self, request: RequestView) -> _Warps:
        return self

    def adjust(self, logits: Tensor, view: NodeView) -> Tensor:
        return _warp(logits.float()[None], self.warpers)[0]

    def advance(self, token: int) -> None:
        """Nothing to remember."""

    def fork(self) -> _Warps:
        return self


class _Raw:
    """Keeps the model's own logits of every visited prefix."""

    name = "raw logits"
    masks = False

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def start(self, request: RequestView) -> _Raw:
        return self

    def adjust(self, logits: Tensor, view: NodeView) -> Tensor:
        self.rows.append(logits.float().clone())
        return logits

    def advance(self, token: int) -> None:
        """Nothing to remember."""


def _warp(scores: Tensor, warpers: Sequence[Any]) -> Tensor:
    for warper in warpers:
        scores = warper(None, scores)
    return scores


# ------------------------------------------------------------------------------------------ the models


class _Wrapped(Model):
    """A transformers model under Ventris; its prompts and texts are token ids."""

    _curve: CostCurve | None = None

    def cost_curve(
        self, again: bool = False, progress: Callable[[str, float | None], None] | None = None
    ) -> CostCurve:
        """A rough T(n), measured once for as long as the model lives."""
        if self._curve is None or again:
            self._curve = measure(self.target, CURVE_SIZES, repeats=2)
        return self._curve


_known: weakref.WeakKeyDictionary[Any, tuple[Any, _Wrapped]] = weakref.WeakKeyDictionary()


def wrap(model: Any) -> Model:
    """The model under Ventris, wrapped once and again only after it was moved, cast or resized.

    Raises:
        BadInput: if the model is in training mode.
        Incompatible: if it cannot score a tree.
    """
    if model.training:
        raise BadInput("the model is in training mode, so its scores are random; call model.eval() first")
    config = model.config.get_text_config(decoder=True)
    state = (model.device, model.dtype, config.vocab_size, config._attn_implementation)
    if model not in _known or _known[model][0] != state:
        target = TransformersTarget(model)
        # The table must not keep the model alive.
        target.model = weakref.proxy(model)
        _known[model] = (state, _Wrapped(target, load_further=load_decoder))
    return _known[model][1]


class _WarpedTarget:
    """A draft model under the target's warps, or at a low temperature most of its draws would be refused."""

    def __init__(self, target: Target, warpers: Sequence[Any]) -> None:
        self._target = target
        self._warpers = warpers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def forward(self, batch: Sequence[Rows], taps: Sequence[int] = ()) -> Scores:
        scores = self._target.forward(batch, taps)
        return Scores([_warp(rows, self._warpers) for rows in scores.logits], scores.hidden)


def _drafter(model: Model, draft: Any, draft_model: Any, warpers: Sequence[Any]) -> Any:
    drafter = build_drafter(draft, model.workshop)
    if draft_model is None:
        return drafter
    target = wrap(draft_model).target
    if target.vocab_size != model.target.vocab_size:
        raise BadInput(
            f"the draft model has {target.vocab_size} tokens and the model {model.target.vocab_size}; "
            "drafts are token ids, so both must share one vocabulary"
        )
    last = DraftModel(cast(Target, _WarpedTarget(target, warpers)) if warpers else target)
    return last if drafter is None else Stack([drafter, last])


# --------------------------------------------------------------------------------- what comes in and out


def _argument_of_generate(name: str) -> Any:
    """An argument of the ``generate`` that is calling, read from its frame; ``None`` without one."""
    code = inspect.unwrap(GenerationMixin.generate).__code__
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return None if frame is None else frame.f_locals.get(name)


def _refuse_settings(config: GenerationConfig, synced_gpus: bool | None) -> None:
    if synced_gpus:
        raise BadInput("synced_gpus needs every process to run the same number of steps; drafting does not")
    if config.num_beams and config.num_beams > 1:
        raise BadInput(f"num_beams is {config.num_beams}; hf_generate decodes one path, so set num_beams=1")
    mode = config.get_generation_mode()
    if mode not in MODES:
        raise BadInput(f"hf_generate decodes greedily or samples; the settings ask for {mode.value!r}")
    if config.return_dict_in_generate and (config.output_attentions or config.output_hidden_states):
        raise BadInput(
            "attentions and hidden states are not kept; unset output_attentions and output_hidden_states"
        )


def _prompts(input_ids: Tensor, model_kwargs: Mapping[str, Any]) -> list[list[int]]:
    """Every row's tokens without the padding on its left.

    Raises:
        BadInput: for inputs beside token ids, a filled cache, own positions, or padding elsewhere.
    """
    further = [name for name, value in model_kwargs.items() if name not in PREPARED and value is not None]
    if further:
        raise BadInput(f"hf_generate reads token ids only, not {', '.join(sorted(further))}")
    if input_ids.shape[1] == 0:
        raise BadInput("the prompt is empty; give at least one token")
    cache = model_kwargs.get("past_key_values")
    if cache is not None and cache.get_seq_length() > 0:
        raise BadInput("past_key_values hold rows already, which cannot be read; leave them out")
    mask = model_kwargs.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask.to(input_ids.device)
    if not bool((mask.diff(dim=1) >= 0).all()) or not bool(mask[:, -1].all()):
        raise BadInput("the attention mask hides tokens after the first visible one; pad on the left")
    positions = model_kwargs.get("position_ids")
    visible = mask.bool()
    if positions is not None:
        usual = (mask.cumsum(1) - 1)[visible]
        if not torch.equal(positions.to(mask.device).expand_as(mask)[visible], usual):
            raise BadInput("position_ids other than 0, 1, 2, … are not supported")
    return [row[seen].tolist() for row, seen in zip(input_ids, visible, strict=True)]


def _refuse_records(row: _Row, request: Request) -> None:
    recording = row.scores is not None or row.raw is not None
    if recording and not request.verifier.exact:
        raise Incompatible(
            f"verifier {request.verifier.name!r}",
            "output_scores or output_logits",
            "it may take a token without asking for its scores",
        )


def _decode(model: Model, requests: Sequence[Request], rows: Sequence[_Row], streamer: Any) -> None:
    """Decode the rows side by side, each up to the token at which a criterion fired."""
    engine = model.engine(max_batch=len(rows))
    completions = [engine.add(request) for request in requests]
    row_of = {id(completion): row for completion, row in zip(completions, rows, strict=True)}
    try:
        for event in engine.run():
            completion = event.completion
            row = row_of[id(completion)]
            if completion.exception is not None and row.length is None:
                raise completion.exception
            # A step may have gone on, or failed, after the token at which the row ended.
            kept = completion.tokens if row.length is None else row.kept
            new = kept[len(row.tokens) :]
            row.tokens += new
            if streamer is not None:
                for token in new:
                    streamer.put(torch.tensor([token]))
            if row.length is not None:
                engine.cancel(completion)
    finally:
        engine.close()
    if streamer is not None:
        streamer.end()


def _output(
    input_ids: Tensor, rows: Sequence[_Row], config: GenerationConfig, ends: Sequence[int]
) -> Tensor | GenerateDecoderOnlyOutput:
    """The sequences, shorter rows padded on the right, and what else was asked for."""
    length = max(len(row.tokens) for row in rows)
    pad = config.pad_token_id if config.pad_token_id is not None else next(iter(ends), 0)
    padded = [row.tokens + [pad] * (length - len(row.tokens)) for row in rows]
    sequences = torch.cat([input_ids, input_ids.new_tensor(padded)], dim=1)
    if not config.return_dict_in_generate:
        return sequences
    scores = [row.scores[: len(row.tokens)] for row in rows if row.scores is not None]
    logits = [row.raw.rows[: len(row.tokens)] for row in rows if row.raw is not None]
    output: Any = GenerateDecoderOnlyOutput
    return cast(
        GenerateDecoderOnlyOutput,
        output(
            sequences=sequences,
            scores=_by_step(scores, length, pad) if scores else None,
            logits=_by_step(logits, length, pad) if logits else None,
        ),
    )


def _by_step(rows: Sequence[Sequence[Tensor]], length: int, pad: int) -> tuple[Tensor, ...]:
    """What the rows kept, ``[batch, vocab]`` for every step; after its end a row is certain of padding."""
    certain = torch.full_like(rows[0][0], -torch.inf)
    certain[pad] = 0.0
    return tuple(
        torch.stack([row[step] if step < len(row) else certain for row in rows]) for step in range(length)
    )
