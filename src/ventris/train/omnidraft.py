"""A draft model for OmniDraft: a small decoder with a vocabulary of its own, learnt from a target's answers.

Nothing in it is particular to that target: it is a whole model in a folder of the usual layout, and drafts
for any target. What it needs to know of the one it serves it learns online.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from ventris.draft.omnidraft.network import LearningNetwork
from ventris.draft.target_sketch import TargetSketch
from ventris.engine.errors import BadInput
from ventris.model import Model
from ventris.models.cache_folder import written_whole
from ventris.models.checkpoint_writing import write_json
from ventris.models.config import DecoderConfig
from ventris.models.hf_tokenizer import read_folder_tokenizer
from ventris.models.target_folder import write_target_folder
from ventris.models.tokenizer import Tokenizer
from ventris.train.first_weights import random_weights
from ventris.train.model_card import own_vocabulary_card
from ventris.train.run import load_target, refuse_finished, texts_folder
from ventris.train.settings import OmniDraftSettings
from ventris.train.target_key import TargetKey
from ventris.train.texts import (
    Progress,
    TextShard,
    claim_folder,
    distil_texts,
    prompts_digest,
    read_prompts,
)
from ventris.train.trainer import Trained, train
from ventris.train.windows import Batch, Text, Windows, split

HEAD_WIDTH = 32
"""Width of an attention head."""


def train_omnidraft(
    settings: OmniDraftSettings, progress: Progress | None = None, command: str = ""
) -> Trained:
    """Make a vocabulary from a target's answers and train a decoder over it to say the same.

    May be killed at any moment: called again with the same settings it goes on where it was.

    Args:
        progress: Told what happens.
        command: For the model card.

    Raises:
        BadInput: for settings or data that cannot be used, or a folder that holds something else.
    """
    folder = settings.folder
    refuse_finished(folder)
    model = load_target(settings, progress)
    if model.tokenizer is None:
        raise BadInput(f"{settings.model} has no tokenizer, so its answers are no text to learn from")
    key = TargetKey.of(model, TargetSketch.of(model.target, model.tokenizer.fingerprint))
    claim_folder(folder / "run" / "settings.json", {**settings.deciding(), "target": key.target})
    answers = _answers(model, key, settings, progress)
    tokenizer = _tokenizer(folder / "run", model.tokenizer, [said for _, said, _ in answers], settings)
    config = _config(tokenizer, settings)

    texts = [
        Text(ids, np.ones(len(ids), bool), np.empty((len(ids), 0, 0), np.uint16), prompt, temperature)
        for prompt, said, temperature in answers
        if len(ids := np.array(tokenizer.encode(said, special=True), np.int32)) > 1
    ]
    learnt, held_out = split(texts, settings.held_out, settings.seed)
    if not learnt or not held_out:
        raise BadInput(f"{settings.data} gives too few texts to train and measure on; give more prompts")
    torch.manual_seed(settings.seed)
    objective = OwnVocabularyObjective(config, settings, model.target.device)
    shape = (min(settings.window, config.context_length), settings.batch, settings.seed)
    trained = train(
        objective,
        Windows(learnt, (), *shape),
        Windows(held_out, (), *shape),
        settings,
        folder / "run" / "state.safetensors",
        model.target.device,
        progress,
    )
    facts = {
        "data": Path(settings.data).name,
        "prompts_digest": prompts_digest(read_prompts(settings.data, settings.limit)),
        "training_tokens": sum(len(text.tokens) for text in learnt),
        "held_out_texts": len(held_out),
        "seed": settings.seed,
        "steps": settings.steps,
        "wall_seconds": round(trained.seconds, 1),
        "final_loss": round(trained.loss, 4),
        "device": model.target.device.type,
    }
    with written_whole(folder / "README.md") as temporary:
        card = own_vocabulary_card(Path(settings.model).name, command, facts, trained.acceptance[0])
        temporary.write_text(card, encoding="utf-8")
    with torch.no_grad():
        write_target_folder(folder, config, objective.network.weights(), tokenizer)
    shutil.rmtree(folder / "run")
    return trained


class OwnVocabularyObjective:
    """The next token of a text, prompt and answer alike."""

    method = "omnidraft"
    sizes: dict[str, Any]

    def __init__(self, config: DecoderConfig, settings: OmniDraftSettings, device: torch.device) -> None:
        self.network = LearningNetwork(config, random_weights(config), rank=0).to(device)
        self.sizes = {}
        self._positions = settings.positions

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        place = batch.answer[:, 1:].nonzero()
        if len(place) > self._positions:
            chosen = torch.randperm(len(place), generator=generator)[: self._positions]
            place = place[chosen.to(place.device)]
        logits, following = self._guesses(batch, place)
        return F.cross_entropy(logits.float(), following)

    def ranks(self, batch: Batch) -> Tensor:
        """Rank of the next token at every position, int64 ``[positions, 1]``."""
        logits, following = self._guesses(batch, batch.answer[:, 1:].nonzero())
        right = logits.gather(1, following[:, None])
        return (logits > right).sum(1, keepdim=True).cpu()

    def measured(self, ranks: Tensor) -> dict[str, Any]:
        return {}

    def _guesses(self, batch: Batch, place: Tensor) -> tuple[Tensor, Tensor]:
        row, at = place.unbind(1)
        rows, decoder = self.network.rows(batch.tokens)
        return decoder.logits(rows[row, at]), batch.tokens[row, at + 1]


def _answers(
    model: Model, key: TargetKey, settings: OmniDraftSettings, progress: Progress | None
) -> list[tuple[int, str, float]]:
    """Prompt number, text with special tokens written out, and temperature of everything the target said."""
    prompts = read_prompts(settings.data, settings.limit)
    folder = texts_folder(key, settings, prompts)
    files = distil_texts(model, prompts, folder, settings.texts(), settings.answer_batch, progress)
    assert model.tokenizer is not None
    answers = []
    for shard in map(TextShard.load, files):
        for index, (start, stop) in enumerate(zip(shard.starts[:-1], shard.starts[1:], strict=True)):
            said = model.tokenizer.decode(shard.tokens[start:stop].tolist(), special=True)
            answers.append((int(shard.prompt[index]), said, float(shard.temperature[index])))
    return answers


def _tokenizer(
    folder: Path, target: Tokenizer, texts: Iterable[str], settings: OmniDraftSettings
) -> Tokenizer:
    """Byte-level BPE of the texts with the target's special tokens, written to the folder."""
    special = [target.token_bytes(id).decode() for id in sorted(target.special_ids)]
    ends = [target.token_bytes(id).decode() for id in target.eos_ids]
    if not (folder / "tokenizer.json").exists():
        backend = tokenizers.Tokenizer(models.BPE())
        # Digits stay alone: of a number of several digits few vocabularies have the same, and a drafted
        # token that the target's does not have cannot be proposed. What it has, mergers make up for.
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        names = special or ["<|end|>"]
        trainer = trainers.BpeTrainer(
            vocab_size=settings.vocabulary,
            special_tokens=[AddedToken(name, special=True, normalized=False) for name in names],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        facts = {"eos_token": (ends or names)[0], "add_bos_token": False}
        write_json(folder / "tokenizer_config.json", facts)
        with written_whole(folder / "tokenizer.json") as temporary:
            backend.save(str(temporary))
    return read_folder_tokenizer(folder)


def _config(tokenizer: Tokenizer, settings: OmniDraftSettings) -> DecoderConfig:
    heads = settings.hidden // HEAD_WIDTH
    return DecoderConfig(
        family="llama",
        vocab_size=tokenizer.vocab_size,
        hidden_size=settings.hidden,
        intermediate_size=3 * settings.hidden,
        num_layers=settings.layers,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=HEAD_WIDTH,
        context_length=settings.context_length,
        tied_head=True,
        eos_ids=tokenizer.eos_ids[:1],
    )
