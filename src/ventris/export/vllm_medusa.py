"""Medusa in the form that vLLM up to 0.32 loads. It drafts a chain of best guesses there, no tree.

vLLM has a form for heads over a shortlist (``token_map``), but 0.32 refuses every checkpoint that uses it,
since its check of loaded weights does not know that tensor. So the vocabulary rows are written in full, and
those of tokens that are not listed are zero: their logit is 0, which is below the best listed one's unless
all of those are negative.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.medusa_heads import MedusaHeads
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.export.folder import write_folder
from ventris.models.source import resolve


def export_medusa(checkpoint: Path, folder: Path, target: str) -> None:
    """Write a Medusa checkpoint for vLLM.

    Args:
        checkpoint: Folder that ``ventris train medusa`` wrote.
        folder: Where the files go.
        target: Name, folder or ``.gguf`` of the target; its vocabulary rows go into the files where the
            checkpoint leaves them to the target.

    Raises:
        BadInput: if ``checkpoint`` is none of Medusa, the target is not found or is another than that of the
            checkpoint, or ``folder`` is taken.
    """
    stored = HeadCheckpoint.load(checkpoint, "medusa")
    network = stored.network(MedusaHeads)
    vocabulary = network.vocabulary
    if vocabulary.kind == "tied":
        source = resolve(target)
        stored.target.check_source(source, f"the medusa checkpoint {checkpoint}")
        shortlist = Shortlist(vocabulary.ids, stored.target.vocab_size)
        vocabulary.rows.copy_(TargetHead.of(source, shortlist).rows)
    vocab_size = stored.target.vocab_size
    write_folder(folder, medusa_config(network, vocab_size), medusa_tensors(network, vocab_size))


def medusa_config(network: MedusaHeads, vocab_size: int) -> dict[str, Any]:
    """The ``config.json``."""
    return {
        "model_type": "medusa",
        "architectures": ["MedusaModel"],
        "torch_dtype": "bfloat16",
        "hidden_size": network.sizes["hidden"],
        "vocab_size": vocab_size,
        "num_heads": network.sizes["heads"],
        "num_hidden_layers": network.sizes["layers"],
        "medusa_fc_bias": True,
        "original_lm_head": network.vocabulary.kind != "own",
    }


def medusa_tensors(network: MedusaHeads, vocab_size: int) -> dict[str, Tensor]:
    """The weights; heads that share their vocabulary rows store them once, as those of head 0."""
    tensors: dict[str, Tensor] = {}
    for layer, (weights, biases) in enumerate(zip(network.weight, network.bias, strict=True)):
        for head, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            tensors[f"blocks.{head}.layers.{layer}.weight"] = weight.detach()
            tensors[f"blocks.{head}.layers.{layer}.bias"] = bias[0].detach()
    rows = network.vocabulary.rows.detach()
    for head, listed in enumerate(rows if rows.dim() == 3 else rows[None]):
        full = listed.new_zeros(vocab_size, listed.shape[-1])
        full[network.vocabulary.ids] = listed
        tensors[f"lm_heads.{head}.weight"] = full
    return tensors
