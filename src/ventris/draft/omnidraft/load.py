"""From options to what OmniDraft is made of: the draft model, the two vocabularies, and what was learnt."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

from ventris.draft.checkpoint import SHIPPED
from ventris.draft.decoder_beside import whole_decoder_beside
from ventris.draft.omnidraft.byte_map import ByteMap
from ventris.draft.omnidraft.learner import Learner
from ventris.draft.omnidraft.memory import Memory
from ventris.draft.omnidraft.mergers import Mergers
from ventris.draft.omnidraft.network import LearningNetwork
from ventris.draft.omnidraft.options import OmniDraftOptions
from ventris.draft.omnidraft.teaching import Teaching
from ventris.draft.omnidraft.translator import Translator
from ventris.draft.target_sketch import TargetSketch
from ventris.engine.errors import BadInput
from ventris.engine.target import Target
from ventris.models.cache_folder import cache_folder
from ventris.models.source import ModelSource, resolve
from ventris.models.tokenizer import Tokenizer

SHIPPED_MODEL = SHIPPED / "omnidraft"
"""The draft model that comes with Ventris; for targets of any vocabulary."""


def load_parts(
    options: OmniDraftOptions, target: Target, tokenizer: Tokenizer
) -> tuple[Target, Translator, Teaching]:
    """The draft model as it has become for one target and one user, its translator, and its teaching.

    Raises:
        BadInput: if the draft model cannot be used, or its memory is damaged or too small.
    """
    source = resolve(options.model or str(SHIPPED_MODEL))
    config = source.config
    if config is None:
        raise BadInput(
            f"the draft model {options.model} can only be run by transformers; drafter 'omnidraft' needs one "
            "of the native families"
        )
    map = ByteMap(source.tokenizer, tokenizer, config.vocab_size, target.vocab_size)
    mergers = Mergers()
    network = LearningNetwork(config, source.weights, options.rank)
    memory = _memory(options, source, target, tokenizer)
    if memory is not None:
        memory.check(sum(t.nbytes for t in network.learnt().values()) + mergers.most_bytes)
        _fill(network, mergers, memory)
    make_model = partial(whole_decoder_beside, target, config)
    learner = Learner(network, map, options.merged_weight, options.divergence, options.learning_rate)
    teaching = Teaching(mergers, options.learn, learner, make_model, memory)
    weights = {name: weight.detach() for name, weight in network.weights().items()}
    return make_model(weights), Translator(map, mergers), teaching


def _fill(network: LearningNetwork, mergers: Mergers, memory: Memory) -> None:
    stored = memory.load()
    if stored is None:
        return
    try:
        network.fill(stored)
        mergers.fill(stored)
    except (KeyError, RuntimeError, ValueError) as error:
        raise BadInput(f"{memory.path} does not fit: {error}; remove it to begin anew") from None


def _memory(
    options: OmniDraftOptions, source: ModelSource, target: Target, tokenizer: Tokenizer
) -> Memory | None:
    """Where the learnt is kept: a file for draft model, target and form of learning in the user's folder.

    The target's tokenizer is part of its sketch, so mergers of one vocabulary are never read as another's.
    """
    if options.memory == "none":
        return None
    root = Path(options.memory).expanduser() if options.memory else cache_folder() / "omnidraft"
    sketch = TargetSketch.of(target, tokenizer.fingerprint)
    facts = (source.fingerprint, source.tokenizer.fingerprint, sketch.digest, options.rank)
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return Memory(root / options.user, key, options.disk)
