"""EAGLE-3 in the format of the project speculators, which vLLM serves and llama.cpp converts.

vLLM counts tapped layers as Ventris does: layer l stands for the rows that layer l reads. The residual sum
takes the hidden row as it is (``norm_before_residual`` false), and what is fed back is the layer's output
before the final norm (``norm_output`` false).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.eagle_network import EagleNetwork
from ventris.export.folder import write_folder

SPECULATORS_VERSION = "0.2.0"
"""The version of the format whose keys are written."""


def export_eagle(checkpoint: Path, folder: Path, target: str, speculative_tokens: int = 3) -> None:
    """Write an EAGLE-3 checkpoint for other engines.

    Args:
        checkpoint: Folder that ``ventris train eagle`` wrote.
        folder: Where the files go.
        target: Name or path of the target, as the other engine knows it.
        speculative_tokens: Tokens drafted ahead if the engine is not told otherwise.

    Raises:
        BadInput: if ``checkpoint`` is none of EAGLE-3, or ``folder`` holds one already.
    """
    stored = HeadCheckpoint.load(checkpoint, "eagle")
    network = stored.network(EagleNetwork)
    config = speculators_config(network, stored.target.vocab_size, target, speculative_tokens)
    write_folder(folder, config, speculators_tensors(network, stored.target.vocab_size))


def speculators_config(
    network: EagleNetwork, vocab_size: int, target: str, speculative_tokens: int
) -> dict[str, Any]:
    """The ``config.json``."""
    layer = network.layer
    return {
        "architectures": ["Eagle3Speculator"],
        "speculators_model_type": "eagle3",
        "speculators_version": SPECULATORS_VERSION,
        "torch_dtype": "bfloat16",
        "draft_vocab_size": len(network.ids),
        "target_hidden_size": layer.hidden,
        "norm_before_residual": False,
        "norm_before_fc": False,
        "fc_norm": False,
        "norm_output": False,
        "eagle_aux_hidden_state_layer_ids": list(network.taps),
        "tie_word_embeddings": False,
        "transformer_layer_config": {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "num_hidden_layers": 1,
            "vocab_size": vocab_size,
            "hidden_size": layer.hidden,
            "intermediate_size": layer.intermediate,
            "num_attention_heads": layer.heads,
            "num_key_value_heads": layer.kv_heads,
            "head_dim": layer.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": layer.context_length,
            "rms_norm_eps": layer.norm_eps,
            "rope_theta": layer.rope_theta,
            "rope_scaling": None,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "mlp_bias": False,
            "tie_word_embeddings": False,
        },
        "speculators_config": {
            "algorithm": "eagle3",
            "default_proposal_method": "greedy",
            "proposal_methods": [
                {
                    "proposal_type": "greedy",
                    "speculative_tokens": speculative_tokens,
                    "verifier_accept_k": 1,
                    "accept_tolerance": 0.0,
                }
            ],
            "verifier": {"name_or_path": target, "architectures": ["LlamaForCausalLM"]},
        },
    }


def speculators_tensors(network: EagleNetwork, vocab_size: int) -> dict[str, Tensor]:
    """The weights; the embedding is the target's own and is left out.

    ``d2t`` is what has to be added to a draft id to get the target's; ``t2d`` marks the listed tokens.
    """
    ids = network.ids.to(torch.int64)
    listed = torch.zeros(vocab_size, dtype=torch.bool)
    listed[ids] = True
    weights = {name.removeprefix("model."): tensor for name, tensor in network.weights().items()}
    return {
        "fc.weight": network.fuse.weight.detach(),
        **weights,
        "d2t": ids - torch.arange(len(ids)),
        "t2d": listed,
    }
