"""A tiny model on disk whose vocabulary is not that of the other tiny model, and what drafts with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from tiny_model import write_tiny_model

import ventris
from ventris.draft.omnidraft import OmniDraft
from ventris.parts import build_drafter

PROMPTS = [f"say {number} and {number % 7}" for number in range(6)]


def drafter(model: ventris.Model, folders: tuple[Path, Path], **options: object) -> OmniDraft:
    """Drafts for the target of a pair of folders with its draft model."""
    options = {"model": str(folders[1]), "learn": "between", "memory": "none", **options}
    made: OmniDraft = build_drafter({"omnidraft": options}, model.workshop)
    return made


def write_draft_model(folder: Path) -> Path:
    """The tiny model once more, with random weights over a vocabulary of all bytes and pairs of letters."""
    write_tiny_model(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [a + b for a in "abcdefgh" for b in "abcdefgh"]
    vocabulary = {piece: id for id, piece in enumerate(["<eos>", *letters, *pairs])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[(pair[0], pair[1]) for pair in pairs]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<eos>"])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    config = json.loads((folder / "config.json").read_text())
    config |= {"vocab_size": len(vocabulary), "max_position_embeddings": 512}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] = 0.5 * torch.randn(
        len(vocabulary), config["hidden_size"], generator=torch.Generator().manual_seed(1)
    )
    save_file(weights, folder / "model.safetensors")
    return folder
