"""Messages between the two processes: a JSON object, and rows of numbers beside it. No code travels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from ventris.engine.errors import StageLost

FOREVER = 10.0 * 365 * 24 * 3600
"""Seconds that an idle process waits for the next question."""

_DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.bfloat16, torch.float64)}


@dataclass(slots=True)
class Wire:
    """One end.

    Attributes:
        group: A gloo group of the two processes.
        peer: The other one's rank in it.
        device: Where rows that arrive are put.
        rows_group: An nccl group for the rows, where both processes have a GPU of their own; else ``None``:
            rows go through the memory of the CPU.
    """

    group: Any
    peer: int
    device: torch.device
    rows_group: Any = None

    def send(self, message: dict[str, Any], seconds: float, rows: Tensor | None = None) -> None:
        """Send a message, with ``rows`` of any shape.

        Raises:
            StageLost: if the other process is gone or takes nothing for so long.
        """
        shape = None if rows is None else [list(rows.shape), str(rows.dtype)]
        text = json.dumps([message, shape]).encode()
        self._send(torch.tensor([len(text)]), seconds)
        self._send(torch.frombuffer(bytearray(text), dtype=torch.uint8), seconds)
        if rows is not None and rows.numel():
            if self.rows_group is not None:
                self.rows_group.send([rows.contiguous()], self.peer, 0).wait()
            else:
                self._send(rows.to("cpu").contiguous().view(-1).view(torch.uint8), seconds)

    def receive(self, seconds: float) -> tuple[dict[str, Any], Tensor | None]:
        """The next message, with its rows.

        Raises:
            StageLost: if the other process is gone or silent for so long.
        """
        size = torch.zeros(1, dtype=torch.int64)
        self._receive(size, seconds)
        text = torch.empty(int(size), dtype=torch.uint8)
        self._receive(text, seconds)
        message, shape = json.loads(text.numpy().tobytes())
        if shape is None:
            return message, None
        dtype = _DTYPES[shape[1]]
        if self.rows_group is not None:
            rows = torch.empty(shape[0], dtype=dtype, device=self.device)
            if rows.numel():
                self.rows_group.recv([rows], self.peer, 0).wait()
            return message, rows
        rows = torch.empty(shape[0], dtype=dtype)
        if rows.numel():
            self._receive(rows.view(-1).view(torch.uint8), seconds)
        return message, rows.to(self.device)

    def _send(self, tensor: Tensor, seconds: float) -> None:
        self._wait(lambda: self.group.send([tensor], self.peer, 0), seconds)

    def _receive(self, tensor: Tensor, seconds: float) -> None:
        self._wait(lambda: self.group.recv([tensor], self.peer, 0), seconds)

    @staticmethod
    def _wait(begin: Any, seconds: float) -> None:
        try:
            begin().wait(timedelta(seconds=seconds))
        except RuntimeError as error:
            timed_out = "timed out" in str(error).lower()
            raise StageLost(f"it was silent for {seconds:g} seconds" if timed_out else "it ended") from None
