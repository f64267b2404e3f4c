"""What a stage is: one product of a row, as draft heads are made of; see :mod:`ventris.models.stages`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Form = Literal["plain", "residual", "halves"]

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Stage:
    """One product of a row x.

    Attributes:
        weight: W, ``[rows, columns]``.
        bias: ``[rows]`` or ``None``.
        form: ``"plain"``: W x. ``"residual"``: x + silu(W_k x) for each of the ``rows / columns`` square
            matrices that W is made of; x becomes as many rows, side by side in the batch. ``"halves"``: the
            first half of W x plus silu of the second.
    """

    weight: Tensor
    bias: Tensor | None = None
    form: Form = "plain"


@dataclass(frozen=True, slots=True)
class InputNorm:
    """An RMS norm before the first stage."""

    weight: Tensor
    eps: float
