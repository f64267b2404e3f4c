"""transformers' ``generate`` in bfloat16, on the weights that our own runtime runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, Field

from ventris.bench.clock import Clock
from ventris.bench.contestant import Decoded, Limits
from ventris.bench.peers.base import Peer, PeerContext, PeerMissing

if TYPE_CHECKING:
    from ventris.models.config import DecoderConfig
    from ventris.models.source import ModelSource


class Plain(Peer):
    """Greedy ``generate`` with the default cache and attention."""

    name = "transformers"
    plain = "transformers"

    class Options(BaseModel):
        """No options."""

    def __init__(self, context: PeerContext, **options: Any) -> None:
        source = context.model()
        self.model = context.once("transformers", lambda: _load(source, context.threads))
        self.extra = self.settings(context, **options)
        import transformers

        extra = "".join(f", {key} {value}" for key, value in options.items())
        attention = self.model.config._attn_implementation
        self.statement = f"transformers {transformers.__version__}, bfloat16, attention {attention}{extra}"

    def settings(self, context: PeerContext, **options: Any) -> dict[str, Any]:
        """Further arguments of ``generate``."""
        return {}

    def decode(self, prompt: Sequence[int], limits: Limits) -> Decoded:
        """Decode one prompt; a streamer tells when tokens arrive."""
        ids = torch.tensor([list(prompt)])
        arrivals = _Arrivals()
        with torch.inference_mode():
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=limits.max_new_tokens,
                do_sample=False,
                eos_token_id=sorted(limits.end_ids) or None,
                pad_token_id=min(limits.end_ids, default=0),
                streamer=arrivals,
                **self.extra,
            )
        tokens = out[0, len(prompt) :].tolist()
        ended = bool(tokens) and tokens[-1] in limits.end_ids
        return Decoded(tokens, arrivals.clock, "stop" if ended else "length")


class PromptLookup(Plain):
    """``prompt_lookup_num_tokens``: drafts copied from the prompt."""

    name = "transformers-prompt-lookup"

    class Options(BaseModel):
        """Options of transformers' prompt lookup."""

        tokens: int = Field(10, ge=1, le=64, description="drafted tokens a step")
        ngram: int = Field(2, ge=1, le=16, description="longest ending that is looked up")

    def settings(self, context: PeerContext, **options: Any) -> dict[str, Any]:
        return {
            "prompt_lookup_num_tokens": options["tokens"],
            "max_matching_ngram_size": options["ngram"],
        }


class Assisted(Plain):
    """``assistant_model``: drafts by a smaller model."""

    name = "transformers-assisted"

    def settings(self, context: PeerContext, **options: Any) -> dict[str, Any]:
        if context.draft_model is None:
            raise PeerMissing("no draft model was given")
        from ventris.models.source import resolve

        draft = resolve(context.draft_model)
        return {"assistant_model": context.once("assistant", lambda: _load(draft, context.threads))}


class _Arrivals:
    """A streamer that only looks at the clock; the first thing it gets is the prompt."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._asked = False

    def put(self, value: torch.Tensor) -> None:
        if self._asked:
            self.clock.arrived(value.numel())
        self._asked = True

    def end(self) -> None:
        """Nothing is held back."""


def _load(source: ModelSource, threads: int) -> Any:
    """The model in bfloat16: from its own folder, or built from our configuration and weights."""
    torch.set_num_threads(threads)
    try:
        import transformers
    except ImportError:
        raise PeerMissing("not installed: pip install transformers") from None
    if source.kind != "gguf":
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            source.path, dtype=torch.bfloat16, local_files_only=True, trust_remote_code=False
        )
        return model.eval()
    if source.config is None:
        raise PeerMissing("the model's configuration is unknown")
    from ventris.models.weights import dense

    model = _empty(source.config)
    wanted = model.state_dict()
    tied = {"lm_head.weight"} if source.config.tied_head else set()
    weights = {name: dense(source.weights[name], torch.bfloat16) for name in wanted if name not in tied}
    model.load_state_dict(weights, strict=not tied)
    model.tie_weights()
    return model.eval()


def _empty(config: DecoderConfig) -> Any:
    """A model of transformers for our configuration, its weights not set yet."""
    import transformers

    from ventris.models.target_folder import transformers_sizes

    exotic = (
        config.window_layers
        or config.post_norms
        or config.norm_plus_one
        or config.attention_softcap
        or config.logit_softcap
        or config.embedding_scale != 1.0
        or config.rope_scaling.kind != "none"
        or config.activation != "silu"
        or (config.rotary_dim and config.rotary_dim != config.head_dim)
    )
    if exotic:
        raise PeerMissing(
            f"cannot be built from a GGUF of the {config.family} family; give the folder instead"
        )
    shared = transformers_sizes(config) | {
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta}
    }
    if config.qk_norm:
        made: Any = transformers.Qwen3ForCausalLM(
            transformers.Qwen3Config(**shared, attention_bias=config.qkv_bias)
        )
    elif config.qkv_bias and not config.output_bias:
        made = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**shared))
    else:
        made = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**shared, attention_bias=config.qkv_bias, mlp_bias=config.mlp_bias)
        )
    return made.to(torch.bfloat16)
