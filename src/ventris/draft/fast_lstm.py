"""An LSTM for drafting: its matrices are products of the target's own runtime, its gates are numpy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from torch import nn

from ventris.engine.target import Target
from ventris.models.stage import Array, Stage
from ventris.models.stages import fast_stages


class FastLstm:
    """The layers of ``torch.nn.LSTM``, over several sequences of different lengths at once.

    A state is float32 ``[layers, 2, d]``: the hidden and the cell row of each layer.
    """

    def __init__(self, lstm: nn.LSTM, target: Target) -> None:
        chains = []
        for layer in range(lstm.num_layers):
            read, recurrent, bias, further = (
                lstm.get_parameter(f"{name}_l{layer}").detach()
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            chains += [[Stage(read, bias + further)], [Stage(recurrent)]]
        products = fast_stages(target, chains)
        self._layers = list(zip(products[::2], products[1::2], strict=True))
        self._width = lstm.hidden_size

    def start(self) -> Array:
        """The state before anything was read."""
        return np.zeros((len(self._layers), 2, self._width), np.float32)

    def run(self, inputs: Sequence[Array], states: Sequence[Array]) -> tuple[list[Array], list[Array]]:
        """Read on from some states.

        Args:
            inputs: For each sequence its next rows, ``[T, columns]``, at least one.

        Returns:
            For each sequence the last layer's rows ``[T, d]``, and the state behind them.
        """
        ends = list(accumulate(map(len, inputs)))
        firsts = [end - len(rows) for end, rows in zip(ends, inputs, strict=True)]
        rows, state = np.concatenate(inputs), np.stack(states)
        for layer, (read, recur) in enumerate(self._layers):
            given = read(rows)
            rows = np.empty((len(given), self._width), np.float32)
            hidden, cell = state[:, layer, 0], state[:, layer, 1]
            for step in range(max(map(len, inputs))):
                going = [place for place, of in enumerate(inputs) if len(of) > step]
                at = [firsts[place] + step for place in going]
                enter, forget, candidate, leave = np.split(given[at] + recur(hidden[going]), 4, axis=1)
                cell[going] = _sigmoid(forget) * cell[going] + _sigmoid(enter) * np.tanh(candidate)
                hidden[going] = rows[at] = _sigmoid(leave) * np.tanh(cell[going])
        return [rows[first:end] for first, end in zip(firsts, ends, strict=True)], list(state)


def _sigmoid(x: Array) -> Array:
    half: Array = np.tanh(x * np.float32(0.5))
    return half * np.float32(0.5) + np.float32(0.5)
