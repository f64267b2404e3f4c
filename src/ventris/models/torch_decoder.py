"""A Llama-like decoder in plain torch: the readable reference, the fallback, and the GPU runtime."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.engine.target import Rows, Scores
from ventris.models.config import DecoderConfig
from ventris.models.row_geometry import check_tokens, wanted_nodes
from ventris.models.torch_layers import Linear, Loader
from ventris.models.torch_stack import TorchStack
from ventris.models.weights import Weights


class TorchDecoder(TorchStack):
    """A :class:`~ventris.engine.target.Target` that runs in plain torch.

    Args:
        config: Sizes and switches.
        weights: A transformers checkpoint's weights by name; quantized matrices are expanded.
        dtype: Type of weights, hidden rows and cache: float32, bfloat16, or float64 for tests of
            exactness. Logits are float32, or float64 where ``dtype`` is.
        device: Where everything lives.
        embedding: That of another decoder, ``[vocab, hidden]``, for one that has none of its own
            (``borrowed_embedding``).

    Raises:
        BadInput: if a weight is missing.
    """

    def __init__(
        self,
        config: DecoderConfig,
        weights: Weights,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        embedding: Tensor | None = None,
    ) -> None:
        loader = Loader(config, weights, dtype, torch.device(device))
        super().__init__(loader)
        self.vocab_size = config.vocab_size
        self.hidden_size = config.hidden_size
        self.embedding = loader.matrix("model.embed_tokens.weight") if embedding is None else embedding
        self.final_norm = loader.norm("model.norm")
        self.lm_head = Linear(self.embedding) if config.tied_head else loader.linear(False, "lm_head")
        reordered = self.embedding.nbytes if config.tied_head and self.lm_head.packed else 0
        self.weight_bytes = loader.nbytes + reordered

    @torch.no_grad()
    def forward(self, batch: Sequence[Rows], taps: Sequence[int] = ()) -> Scores:
        """Embed, run all layers, and apply the final norm and the head to the wanted nodes."""
        hidden, tapped = self.run_layers(batch, self.embed(batch), 0, self.num_layers, taps)
        nodes, counts = wanted_nodes(batch)
        if len(nodes) < hidden.shape[0]:
            hidden = hidden[torch.tensor(nodes, dtype=torch.int64, device=self.device)]
        return Scores(list(torch.split(self.head(hidden), counts)), tapped)

    @torch.no_grad()
    def embed(self, batch: Sequence[Rows]) -> Tensor:
        """Input rows of all nodes of the batch, ``[nodes, hidden]``.

        Raises:
            BadInput: if a token id is outside the vocabulary, or given rows have the wrong shape.
        """
        parts = [self._embed_one(rows) for rows in batch]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _embed_one(self, rows: Rows) -> Tensor:
        if rows.embeddings is not None:
            expected = (len(rows.tokens), self.hidden_size)
            if rows.embeddings.shape != expected:
                raise BadInput(f"embeddings have shape {tuple(rows.embeddings.shape)}, expected {expected}")
            return rows.embeddings.to(self.device, self.dtype)
        check_tokens(rows.tokens, self.vocab_size)
        return self.embed_tokens(torch.tensor(rows.tokens, dtype=torch.int64, device=self.device))

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Scaled embeddings, ``[n] -> [n, hidden]``."""
        embedded = self.embedding[tokens]
        if self.config.embedding_scale != 1.0:
            # Rounded to the weights' type first, as the models were trained.
            embedded = embedded * torch.tensor(self.config.embedding_scale, dtype=self.dtype)
        return embedded

    @torch.no_grad()
    def run_layers(
        self,
        batch: Sequence[Rows],
        hidden: Tensor,
        first: int,
        last: int,
        taps: Sequence[int] = (),
        beside: Tensor | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """As :meth:`TorchStack.run_layers`; what attention reads beside is looked up, where it is needed.

        Raises:
            BadInput: if a node stands past the context, or a tap is no layer.
        """
        if self.config.token_beside_hidden:
            beside = self._tokens_beside(batch)
        return super().run_layers(batch, hidden, first, last, taps, beside)

    def _tokens_beside(self, batch: Sequence[Rows]) -> Tensor:
        """Embeddings of the nodes' tokens, whatever rows the layers start from, ``[nodes, hidden]``."""
        tokens = [token for rows in batch for token in rows.tokens]
        check_tokens(tokens, self.vocab_size)
        return self.embed_tokens(torch.tensor(tokens, dtype=torch.int64, device=self.device))

    @torch.no_grad()
    def head(self, hidden: Tensor) -> Tensor:
        """Final norm and vocabulary projection, ``[n, hidden] -> [n, vocab]``."""
        return self.logits(self.final_norm(hidden.to(self.device, self.dtype)))

    def logits(self, normed: Tensor) -> Tensor:
        """Vocabulary projection of final-normed rows, ``[n, hidden] -> [n, vocab]``, with gradients."""
        logits = self.lm_head(normed).to(self.wide)
        cap = self.config.logit_softcap
        return torch.tanh(logits / cap) * cap if cap else logits
