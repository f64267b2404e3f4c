"""A transformers folder as a checkpoint: ``config.json``, safetensors and ``tokenizer.json``."""

from __future__ import annotations

from pathlib import Path

from ventris.engine.errors import BadInput
from ventris.models import hf_tokenizer
from ventris.models.config import DecoderConfig
from ventris.models.hf_config import read_folder_config
from ventris.models.model_cache import Description
from ventris.models.safetensors_files import INDEX, SafetensorsWeights, weight_files
from ventris.models.weights import Weights

_SMALL = ("config.json", "generation_config.json", INDEX, *hf_tokenizer.FILES)


class FolderCheckpoint:
    """Reads a folder in the layout of ``save_pretrained``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        """The files that make the model what it is.

        Raises:
            BadInput: if it has no ``config.json`` or no safetensors.
        """
        if not (self.folder / "config.json").is_file():
            raise BadInput(
                f"{self.folder} has no config.json; give a transformers checkpoint's folder or a .gguf file"
            )
        small = [self.folder / name for name in _SMALL if (self.folder / name).is_file()]
        return small + sorted(set(weight_files(self.folder).values()))

    def describe(self) -> Description:
        """Configuration (``None`` where only transformers can run the model) and tokenizer.

        Raises:
            BadInput: if a file is damaged or the tokenizer is of an unknown kind.
        """
        config = read_folder_config(self.folder)
        tokenizer = hf_tokenizer.read_folder_tokenizer(self.folder, config.eos_ids if config else ())
        return Description(config, tokenizer, bits=16)

    def weights(self, config: DecoderConfig) -> Weights:
        """The weights by name, read lazily.

        Raises:
            BadInput: if a weight is missing or has a wrong shape.
        """
        return SafetensorsWeights(self.folder, config)
