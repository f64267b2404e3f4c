"""Messages between the two processes: a JSON object, and rows of numbers beside it. No code travels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ventris.engine.errors import StageLost

FOREVER = 10.0 * 365 * 24 * 3600
"""Seconds that an idle process waits for the next question."""

FRAME = 4096
"""Bytes of the first part of every message; what is longer has a second part."""

_SIZE = 8
"""Bytes of a length; the text's and the rows' stand at the beginning of a message."""

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
        body = torch.empty(0, dtype=torch.uint8)
        if rows is not None and self.rows_group is None:
            body = rows.to("cpu").contiguous().view(-1).view(torch.uint8)
        head = len(text).to_bytes(_SIZE, "little") + len(body).to_bytes(_SIZE, "little") + text
        content = torch.cat([torch.frombuffer(bytearray(head), dtype=torch.uint8), body])
        if len(content) <= FRAME:
            self._send(F.pad(content, (0, FRAME - len(content))), seconds)
        else:
            self._send(content[:FRAME], seconds)
            self._send(content[FRAME:], seconds)
        if self.rows_group is not None and rows is not None and rows.numel():
            self.rows_group.send([rows.contiguous()], self.peer, 0).wait()

    def receive(self, seconds: float) -> tuple[dict[str, Any], Tensor | None]:
        """The next message, with its rows.

        Raises:
            StageLost: if the other process is gone or silent for so long.
        """
        content = torch.empty(FRAME, dtype=torch.uint8)
        self._receive(content, seconds)
        sizes = content[: 2 * _SIZE].numpy().tobytes()
        start = 2 * _SIZE + int.from_bytes(sizes[:_SIZE], "little")
        end = start + int.from_bytes(sizes[_SIZE:], "little")
        if end > FRAME:
            rest = torch.empty(end - FRAME, dtype=torch.uint8)
            self._receive(rest, seconds)
            content = torch.cat([content, rest])
        message, shape = json.loads(content[2 * _SIZE : start].numpy().tobytes())
        if shape is None:
            return message, None
        dtype = _DTYPES[shape[1]]
        if self.rows_group is None:
            # Copied, so that its numbers begin where numbers of their size may begin.
            return message, content[start:end].clone().view(dtype).view(shape[0]).to(self.device)
        rows = torch.empty(shape[0], dtype=dtype, device=self.device)
        if rows.numel():
            self.rows_group.recv([rows], self.peer, 0).wait()
        return message, rows

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
