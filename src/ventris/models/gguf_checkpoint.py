"""A GGUF file as a checkpoint: configuration, tokenizer and weights out of one file."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from ventris.engine.errors import BadInput
from ventris.models.config import DecoderConfig
from ventris.models.gguf import GgufFile
from ventris.models.gguf_decoder import read_config, read_weights, storage_bits
from ventris.models.gguf_vocabulary import build_tokenizer
from ventris.models.model_cache import Description
from ventris.models.tokenizer import Tokenizer
from ventris.models.weights import Weights


class GgufCheckpoint:
    """Reads one ``.gguf`` file; it is opened when first needed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def file(self) -> GgufFile:
        file = GgufFile(self.path)
        if file.get("split.count", int, 1) > 1:
            raise BadInput(
                f"{self.path.name} is one part of several; join them first with llama-gguf-split --merge"
            )
        return file

    def describe(self) -> Description:
        """Configuration and tokenizer.

        Raises:
            BadInput: if the file is damaged or holds a model of an unknown kind.
        """
        config = read_config(self.file)
        return Description(config, Tokenizer(*build_tokenizer(self.file)), storage_bits(self.file))

    def weights(self, config: DecoderConfig) -> Weights:
        """The weights by transformers' names, read lazily.

        Raises:
            BadInput: if a tensor is missing or has a wrong shape.
        """
        return read_weights(self.file, config)
