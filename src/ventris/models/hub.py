"""Checkpoints from the hub, through ``huggingface_hub`` and its cache."""

from __future__ import annotations

from pathlib import Path

from ventris.engine.errors import BadInput
from ventris.models.cache_folder import Progress
from ventris.models.embedded import EMBEDDED_NAME
from ventris.models.safetensors_files import weight_files

_WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]
_UNWANTED = ["consolidated*", "original/*", "onnx/*"]


def fetch(repository: str, progress: Progress | None = None) -> Path:
    """The local folder of a hub repository.

    What is in the hub's cache is used without asking the network; ``HF_HUB_OFFLINE`` is respected.

    Raises:
        BadInput: if the repository is unknown, private, or out of reach.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        cached = Path(snapshot_download(repository, allow_patterns=_WANTED, local_files_only=True))
        # A snapshot that was cut off, or only ever held a tokenizer, is in the cache as well.
        if weight_files(cached) and (cached / "config.json").is_file():
            return cached
    except HFValidationError as error:
        raise BadInput(f"{repository!r} is no hub id: {error}") from None
    except (OSError, BadInput):
        pass  # not there yet, or not all of it
    if progress:
        progress(f"downloading {repository} from the hub", None)
    try:
        return Path(snapshot_download(repository, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except GatedRepoError:
        raise BadInput(
            f"the hub lets only registered users have {repository}; accept its terms there and set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise BadInput(
            f"the hub knows no model {repository}; check the spelling, set HF_TOKEN if it is private, "
            f"or use {EMBEDDED_NAME}, which needs no hub"
        ) from None
    except Exception as error:  # the transport's errors are many, and all mean that nothing came
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(
            f"cannot fetch {repository} from the hub ({reason}); connect to the network, give a local "
            f"folder, or use {EMBEDDED_NAME}, which needs no hub"
        ) from None
