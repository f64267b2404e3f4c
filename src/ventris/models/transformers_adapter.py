"""Any causal language model of transformers as a Target: slower than our runtimes, but any family.

The model keeps its own forward; only its cache is replaced by one that writes into our scratch rows,
and its mask by the ancestor mask of the tree. Whether a model takes both is tried out when it is
wrapped, so a model that cannot score a tree is refused before it is used.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np
import torch
from torch import Tensor

from ventris.engine.cache import CacheLayout, KVCache, Span
from ventris.engine.errors import BadInput, Incompatible
from ventris.engine.ledger import MemoryLedger
from ventris.engine.target import Rows, Scores
from ventris.models.row_geometry import check_tokens, scratch_positions, visible_rows

KNOWN_LAYERS = {"full_attention", "sliding_attention"}


class TransformersTarget:
    """A :class:`~ventris.engine.target.Target` around a loaded transformers model.

    Requests run one after the other. The model must not be used by another thread meanwhile.

    Args:
        model: A causal language model with the eager or sdpa attention.

    Raises:
        Incompatible: if the model has no key/value cache of the usual kind, or cannot score a tree.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.config = model.config.get_text_config(decoder=True)
        self.parameters = inspect.signature(model.forward).parameters
        reason = refusal(model, self.config, self.parameters)
        if reason:
            self._refuse(reason)
        self.device = model.device
        self.weight_bytes = sum(parameter.nbytes for parameter in model.parameters())
        self.num_layers = self.config.num_hidden_layers
        self.hidden_size = self.config.hidden_size
        self.context_length = getattr(self.config, "max_position_embeddings", None) or sys.maxsize
        self.windows = layer_windows(self.config)
        self.layers_path = self._find_layers()
        self.layers_return_tuples = False
        try:
            self.vocab_size, self.layout = self._probe_sizes()
            self._probe_tree()
        except (TypeError, ValueError, RuntimeError, AttributeError, LookupError) as error:
            self._refuse(f"it does not take a tree's mask, positions or cache ({error})")

    @classmethod
    def load(
        cls, path_or_id: str, dtype: str | torch.dtype = "auto", device: str = "auto"
    ) -> TransformersTarget:
        """Load a checkpoint folder or a hub model and wrap it.

        Raises:
            BadInput: if transformers cannot load it.
        """
        from transformers import AutoModelForCausalLM

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                path_or_id, dtype=dtype, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise BadInput(f"transformers cannot load {path_or_id!r}: {first_line}") from error
        return cls(model.to(device))

    def new_cache(
        self, capacity: int = 64, ledger: MemoryLedger | None = None, owner: str = "target"
    ) -> KVCache:
        """An empty cache for one sequence, with room for about ``capacity`` rows."""
        return KVCache(self.layout, capacity, ledger, owner)

    @torch.no_grad()
    def forward(self, batch: Sequence[Rows], taps: Sequence[int] = ()) -> Scores:
        """Score every request's nodes, one request after the other.

        Raises:
            BadInput: if a node stands past the context, a token is unknown, or a tap is no layer.
        """
        if any(not 0 <= tap <= self.num_layers for tap in taps):
            raise BadInput(f"cannot tap layers {list(taps)}: this model has layers 0 to {self.num_layers}")
        results = [self._forward_one(rows, taps) for rows in batch]
        hidden = {tap: torch.cat([tapped[tap] for _, tapped in results]) for tap in taps}
        return Scores([logits for logits, _ in results], hidden)

    @torch.no_grad()
    def embed(self, batch: Sequence[Rows]) -> Tensor:
        """Token embeddings of all nodes, ``[nodes, hidden]``, without the positions a model may add."""
        return torch.cat([self._embed_one(rows) for rows in batch])

    def run_layers(
        self, batch: Sequence[Rows], hidden: Tensor, first: int, last: int, taps: Sequence[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Not available: transformers runs a model as a whole.

        Raises:
            Incompatible: always.
        """
        raise Incompatible(
            f"a {self.config.model_type} model run by transformers",
            "a part that runs some of its layers",
            "the adapter can only run the whole model; use a family that Ventris runs natively",
        )

    @torch.no_grad()
    def head(self, hidden: Tensor) -> Tensor:
        """Final norm and vocabulary projection, ``[n, hidden] -> [n, vocab]``.

        The model's own forward runs, with its layers replaced by one that returns ``hidden``, so
        whatever a family does after its last layer is done here too.
        """
        width = self.model.get_input_embeddings().weight.shape[1]
        blank = torch.zeros((1, hidden.shape[0], width), dtype=self.model.dtype, device=self.device)
        positions = torch.zeros((1, hidden.shape[0]), dtype=torch.int64, device=self.device)
        with self._layers_return(hidden.to(self.device, self.model.dtype)[None]):
            output = self.model(inputs_embeds=blank, position_ids=positions, use_cache=False)
        return floating(output.logits[0])

    def _embed_one(self, rows: Rows) -> Tensor:
        if rows.embeddings is not None:
            return rows.embeddings.to(self.device, self.model.dtype)
        check_tokens(rows.tokens, self.vocab_size)
        tokens = torch.tensor(rows.tokens, dtype=torch.int64, device=self.device)
        embedded: Tensor = self.model.get_input_embeddings()(tokens)
        return embedded

    def _forward_one(self, rows: Rows, taps: Sequence[int]) -> tuple[Tensor, dict[int, Tensor]]:
        positions = scratch_positions(rows, self.context_length)
        masks = self._masks(rows, positions)
        wanted = range(len(rows.tokens)) if rows.wanted is None else rows.wanted
        # Some models cannot project no row at all, so one is, and dropped again.
        kept = torch.tensor(list(wanted) or [0], dtype=torch.int64, device=self.device)
        arguments = {"logits_to_keep": kept} if "logits_to_keep" in self.parameters else {}
        with self._last_layer_output(self.num_layers in taps) as last:
            output = self.model(
                inputs_embeds=self._embed_one(rows)[None],
                position_ids=torch.from_numpy(positions[None, rows.start :]).to(self.device),
                attention_mask=masks,
                past_key_values=scratch_cache(rows),
                use_cache=True,
                output_hidden_states=any(tap < self.num_layers for tap in taps),
                return_dict=True,
                **arguments,
            )
        logits = output.logits[0] if arguments else output.logits[0, kept]
        tapped = {tap: last[0][0] if tap == self.num_layers else output.hidden_states[tap][0] for tap in taps}
        return floating(logits[: len(wanted)]), tapped

    def _masks(self, rows: Rows, positions: np.ndarray) -> Tensor | dict[str, Tensor]:
        """The additive mask ``[1, 1, nodes, rows]``, or one for each kind of layer."""
        visible = visible_rows(rows)
        window = max(self.windows)
        if not window:
            return self._additive(visible)
        sliding = [layer for layer, size in enumerate(self.windows) if size]
        committed = rows.cache.positions().numpy()[sliding]
        if (committed != committed[0]).any():
            raise BadInput(
                f"a {self.config.model_type} model run by transformers has one mask for all its window "
                "layers, so the same rows must be kept in each of them"
            )
        keys = np.concatenate((committed[0], positions))
        near = positions[rows.start :, None] - keys < window
        masks = {"sliding_attention": self._additive(visible & near)}
        if len(sliding) == self.num_layers:
            return masks["sliding_attention"]
        return {**masks, "full_attention": self._additive(visible)}

    def _additive(self, visible: np.ndarray) -> Tensor:
        mask = torch.zeros(visible.shape, dtype=self.model.dtype)
        mask.masked_fill_(torch.from_numpy(~visible), torch.finfo(mask.dtype).min)
        return mask[None, None].to(self.device)

    def _find_layers(self) -> str:
        """Name of the module list that holds the decoder's layers."""
        lists = (n for n, module in self.model.named_modules() if isinstance(module, torch.nn.ModuleList))
        path = next((n for n in lists if len(self.model.get_submodule(n)) == self.num_layers), "")
        if not path:
            self._refuse("its layers are not in one list, so their outputs cannot be read")
        return path

    @contextmanager
    def _last_layer_output(self, needed: bool) -> Iterator[list[Tensor]]:
        """Receives the rows after the last layer, which transformers reports only after the final norm."""
        received: list[Tensor] = []

        def remember(module: Any, inputs: Any, output: Any) -> None:
            self.layers_return_tuples = isinstance(output, tuple)
            received.append(output[0] if self.layers_return_tuples else output)

        if not needed:
            yield received
            return
        handle = self.model.get_submodule(self.layers_path)[-1].register_forward_hook(remember)
        try:
            yield received
        finally:
            handle.remove()

    @contextmanager
    def _layers_return(self, hidden: Tensor) -> Iterator[None]:
        """Let the model's list of layers be one layer that returns ``hidden``, whatever it gets."""
        parent_path, _, name = self.layers_path.rpartition(".")
        parent = self.model.get_submodule(parent_path)
        layers = getattr(parent, name)
        last = layers[-1]
        output = (hidden, None) if self.layers_return_tuples else hidden
        last.forward = lambda *args, **kwargs: output
        setattr(parent, name, torch.nn.ModuleList([last]))
        try:
            yield
        finally:
            setattr(parent, name, layers)
            del last.forward

    def _probe_sizes(self) -> tuple[int, CacheLayout]:
        """Vocabulary and cache sizes, read off a short run with transformers' own cache."""
        from transformers import DynamicCache

        cache: Any = DynamicCache()
        tokens = torch.tensor([PROBE[:2]], device=self.device)
        with torch.no_grad():
            logits = self.model(tokens, past_key_values=cache, use_cache=True).logits
        shapes = {tuple(rows.shape) for layer in cache.layers for rows in (layer.keys, layer.values)}
        devices = {layer.keys.device for layer in cache.layers}
        if len(cache.layers) != self.num_layers or len(shapes) != 1:
            self._refuse("its layers do not all cache keys and values of one shape")
        if len(devices) != 1:
            self._refuse("it is spread over several devices; load it on one")
        _, kv_heads, _, head_dim = shapes.pop()
        dtype = cache.layers[0].keys.dtype
        return logits.shape[-1], CacheLayout(self.num_layers, kv_heads, head_dim, dtype, devices.pop())

    @torch.no_grad()
    def _probe_tree(self) -> None:
        """Score a small tree in two steps and compare with the model's plain run of each path."""
        cache = self.new_cache()
        self.forward([Rows(cache, PROBE[:2], [-1, 0])])
        cache.commit([0, 1])
        scores = self.forward([Rows(cache, PROBE[2:], [-1, -1, 0])], taps=[self.num_layers])
        headed = self.head(scores.hidden[self.num_layers])
        paths = [PROBE[:3], [*PROBE[:2], PROBE[3]], [*PROBE[:3], PROBE[4]]]
        plain = [self.model(torch.tensor([path], device=self.device)).logits[0, -1] for path in paths]
        alone = floating(torch.stack(plain))
        allowed = 1e-3 if self.model.dtype in (torch.float32, torch.float64) else 0.1
        for name, logits in (("the nodes of a tree", scores.logits[0]), ("its last layer", headed)):
            error_share = (logits - alone).abs().mean() / alone.std().clamp_min(1e-12)
            if not error_share < allowed:
                self._refuse(f"its scores for {name} differ from those for plain text")

    def _refuse(self, reason: str) -> NoReturn:
        raise Incompatible(f"the model type {self.config.model_type!r}", "the transformers adapter", reason)


PROBE = [3, 7, 1, 5, 2]
"""Token ids that every vocabulary has, for trying a model out."""


def refusal(model: Any, config: Any, parameters: Any) -> str:
    """Why a model cannot be wrapped, as far as its description tells; empty if it can."""
    if config.is_encoder_decoder or getattr(config, "add_cross_attention", False):
        return "it reads an encoder, and only decoder-only models can be decoded here"
    if getattr(model, "_is_stateful", False) or "past_key_values" not in parameters:
        return "it keeps a recurrent state instead of a key/value cache, and a state cannot hold a tree"
    unknown = set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYERS
    if unknown:
        return f"its layers of type {', '.join(sorted(unknown))} keep no ordinary key/value cache"
    if "local" in getattr(config, "attention_layers", ()):
        return "its local layers count rows of the cache, and the rows of a tree are not in a line"
    if getattr(config, "attention_chunk_size", None):
        return "its attention works in chunks, which the tree's mask does not express"
    if getattr(config, "alibi", False) or "position_ids" not in parameters:
        return "it takes positions from the order of its cache (ALiBi), so siblings in a tree get wrong ones"
    if config._attn_implementation not in ("eager", "sdpa"):
        return (
            f"its attention {config._attn_implementation!r} takes no tree mask; "
            "load it with attn_implementation='sdpa'"
        )
    return ""


def layer_windows(config: Any) -> list[int]:
    """Sliding window of each layer; 0 where it sees everything."""
    window = getattr(config, "sliding_window", None) or 0
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return [window if kind == "sliding_attention" else 0 for kind in kinds]


def floating(logits: Tensor) -> Tensor:
    """Logits in float32, or float64 where the model computes in it."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def scratch_cache(rows: Rows) -> Any:
    """A transformers cache whose layers are one request's committed and scratch rows."""
    from transformers.cache_utils import Cache, CacheLayerMixin

    # Registered, not derived, because transformers takes seconds to import.
    CacheLayerMixin.register(ScratchLayer)
    tail = rows.cache.reserve(rows.start + len(rows.tokens), rows.start)
    layers: Any = [ScratchLayer(rows, tail, index) for index in range(rows.cache.layout.layers)]
    return Cache(layers=layers)


@dataclass(slots=True)
class ScratchLayer:
    """One layer of a request's cache, as transformers' ``CacheLayerMixin`` wants it."""

    rows: Rows
    tail: Span
    index: int

    is_initialized: ClassVar[bool] = True
    is_sliding: ClassVar[bool] = False
    is_compileable: ClassVar[bool] = False
    is_croppable: ClassVar[bool] = False
    supports_early_init: ClassVar[bool] = False

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write ``[1, kv_heads, nodes, head_dim]`` into the scratch rows and return all rows."""
        filled = self.rows.start + keys.shape[2]
        block = self.tail.storage.data[self.index]
        block[0, :, self.tail.used + self.rows.start : self.tail.used + filled] = keys[0]
        block[1, :, self.tail.used + self.rows.start : self.tail.used + filled] = values[0]
        all_keys, all_values = self.rows.cache.rows(self.index, filled)
        return all_keys[None], all_values[None]

    def get_seq_length(self) -> int:
        """Rows before the new ones."""
        return self.rows.cache.length + self.rows.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No limit of its own."""
        return -1
