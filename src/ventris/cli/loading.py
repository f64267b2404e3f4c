"""Loading the model that a command was asked to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ventris.cli.progress import phases
from ventris.cli.settings import Asked, ModelOptions

if TYPE_CHECKING:
    from ventris.model import Model
    from ventris.models.load import DType, Kernels


def load_model(options: ModelOptions) -> Model:
    """Load a model, with its progress on stderr.

    Raises:
        BadInput: as :func:`ventris.load`.
    """
    with phases(f"loading {options.model}") as progress:
        from ventris import model

        # Not every word is a number format; `load` says which are.
        dtype, kernels = cast("DType", options.dtype), cast("Kernels", options.kernels)
        return model.load(
            options.model,
            dtype,
            kernels,
            options.device,
            options.threads,
            progress,
            memory_budget=options.memory_budget,
            stages=options.stages,
            rendezvous=options.rendezvous,
            second_layers=options.second_layers,
        )


def load_for(asked: Asked) -> Model:
    """Load the model for settings that were found to fit together.

    Raises:
        BadInput, Incompatible: before anything is loaded, if the parts do not.
    """
    with phases("starting"):
        from ventris.model import check_settings

        check_settings(asked.options)
    return load_model(asked.model)
