"""Rotary tables for the compiled library, as long as the texts seen so far."""

from __future__ import annotations

import ctypes
import threading

from torch import Tensor

from ventris.models.config import DecoderConfig
from ventris.models.native import abi
from ventris.models.rope import rope_tables

FIRST_ROPE_POSITIONS = 2048


class RopeTables:
    """Cosines and sines of the positions seen so far, for the model's one or two rotary bases."""

    def __init__(self, config: DecoderConfig) -> None:
        self._config = config
        self._thetas = list(dict.fromkeys(config.theta(layer) for layer in range(config.num_layers)))
        self._lock = threading.Lock()
        self._positions = 0
        # Another thread may still compute with tables that have been outgrown, so none is dropped.
        self._tables: list[Tensor] = []
        self._addresses = (abi.Rope * 2)()

    def index(self, theta: float) -> int:
        """Which table serves the layers of this base."""
        return self._thetas.index(theta)

    def up_to(self, positions: int) -> ctypes.Array[abi.Rope]:
        """Addresses of tables for at least ``positions`` positions (or for the whole context)."""
        if positions > self._positions:
            with self._lock:
                self._grow(positions)
        return self._addresses

    def _grow(self, positions: int) -> None:
        context = self._config.context_length
        wanted = min(max(positions, 2 * self._positions, FIRST_ROPE_POSITIONS), context)
        if wanted <= self._positions:
            return
        addresses = (abi.Rope * 2)()
        for index, theta in enumerate(self._thetas):
            cosines, sines = (table.contiguous() for table in rope_tables(self._config, theta, wanted))
            self._tables += [cosines, sines]
            addresses[index] = abi.Rope(cosines.data_ptr(), sines.data_ptr())
        self._addresses = addresses
        self._positions = wanted
