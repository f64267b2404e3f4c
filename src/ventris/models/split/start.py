"""Loading a model in two processes: start or await the second one, agree, and join both ends."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ventris import __version__
from ventris.engine.errors import BadInput, StageLost
from ventris.models.cache_folder import Progress
from ventris.models.config import DecoderConfig
from ventris.models.source import ModelSource
from ventris.models.split.decoder import SplitDecoder
from ventris.models.split.link import Link
from ventris.models.split.plan import Split, gpu_name, layers_before_cut, same_model_digest
from ventris.models.split.rendezvous import LOOPBACK, Address, Meeting
from ventris.models.torch_decoder import TorchDecoder

ENDING_SECONDS = 5.0
"""How long the second process may take to end before it is killed."""


class ChildStage:
    """``ventris stage`` as a process on this machine.

    It stays out of the terminal's Ctrl-C, which is for the first process, and ends when that does.

    Args:
        address: Of the first process.
        model: Path of the checkpoint.
        device: Where its layers go.
        threads: As :func:`ventris.load`.
    """

    def __init__(self, address: Address, model: Path, device: torch.device, threads: int | None) -> None:
        command = [sys.executable, "-m", "ventris", "stage", str(address)]
        command += ["--model", str(model), "--device", str(device)]
        if threads is not None:
            command += ["--threads", str(threads)]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # open until the process ends
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            start_new_session=True,
        )

    def fate(self) -> str | None:
        """How it ended and what it said last; ``None`` while it runs."""
        with suppress(subprocess.TimeoutExpired):
            # The end of a connection may be noticed before the end of the process.
            self.process.wait(0.2)
        if (code := self.process.poll()) is None:
            return None
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        how = f"ended with code {code}" if code >= 0 else f"was ended by signal {-code}"
        last = f": {lines[-1].removeprefix('ventris: error: ')}" if lines else ""
        return f"its process {how}{last}"

    def end(self, seconds: float) -> None:
        """Wait for its end, and kill it after so many seconds."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._said.close()


def load_split(
    source: ModelSource,
    config: DecoderConfig,
    dtype: torch.dtype,
    device: torch.device,
    threads: int | None,
    split: Split,
    progress: Progress | None = None,
) -> SplitDecoder:
    """A decoder whose second part is in another process.

    Args:
        config: Of the whole model.
        split: Where the other process comes from, and what it holds.

    Raises:
        BadInput: if the layers cannot be divided so, or the other process has another model.
        StageLost: if it does not start.
    """
    cut = layers_before_cut(config, split.second_layers)
    beside = None if split.address else _device_beside(device)
    meeting = Meeting.open(split.address or Address(LOOPBACK, 0))
    child = None if beside is None else ChildStage(meeting.address, source.path, beside, threads)
    fate: Callable[[], str | None] = child.fate if child else _unknown
    wanted: dict[str, Any] = {
        "layers": [cut, config.num_layers],
        "context_length": config.context_length,
        "dtype": str(dtype).removeprefix("torch."),
    }
    try:
        if child is None and progress:
            progress(f"waiting for: ventris stage {meeting.address} --model {source.name}", None)
        there = meeting.hear("second", split.start_seconds, fate)
        if (reason := _mismatch(there, source)) is not None:
            meeting.say("first", {"refused": reason})
            with suppress(StageLost):
                # What is said here ends with this process; let the other one read it first.
                meeting.hear("understood", ENDING_SECONDS, fate)
            raise BadInput(reason)
        here = gpu_name(device)
        wanted["nccl"] = here is not None and there["gpu"] not in (None, here)
        meeting.say("first", wanted)
        # Both read their weights at the same time.
        first = TorchDecoder(config.with_layers(0, cut), source.weights, dtype, device)
        ready = meeting.hear("ready", split.start_seconds, fate)
        if "refused" in ready:
            raise StageLost(ready["refused"])
        link = Link(meeting.connect(device, wanted["nccl"]), split.pass_seconds, fate)
    except BaseException as error:
        if child is not None:
            child.end(0)
        if isinstance(error, StageLost):
            raise StageLost(f"the second stage did not start: {error}") from None
        raise

    def close() -> None:
        told = link.close(ENDING_SECONDS)
        if child is not None:
            child.end(ENDING_SECONDS if told else 0)
            # A question that was open has its answer now: there is nobody to wait for.
            link.close(ENDING_SECONDS)

    return SplitDecoder(config, first, link, ready["weight_bytes"], close)


def _mismatch(there: dict[str, Any], source: ModelSource) -> str | None:
    if there["ventris"] != __version__:
        return f"the second stage runs ventris {there['ventris']}, the first {__version__}; use the same"
    if there["model"] != same_model_digest(source):
        return f"the second stage has another model than {source.name}; give it the same checkpoint"
    return None


def _device_beside(device: torch.device) -> torch.device:
    """Where a second process of this machine computes: on the CPU too, or on the next GPU.

    Raises:
        BadInput: if there is no other GPU.
    """
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count()
    if count < 2:
        raise BadInput(
            "two stages on this machine need a second GPU, and there is one; give a rendezvous, and start "
            "ventris stage with --device cpu or on another machine"
        )
    return torch.device("cuda", ((device.index or 0) + 1) % count)


def _unknown() -> None:
    """How a process on another machine ended is not known here."""
