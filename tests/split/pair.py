"""A tiny model whose halves are in two threads of this process, connected as two processes are."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from threading import Thread

import families
import torch

from ventris.engine.ledger import MemoryLedger
from ventris.models.split.decoder import SplitDecoder
from ventris.models.split.link import Link
from ventris.models.split.rendezvous import LOOPBACK, Address, Meeting
from ventris.models.split.second import SecondStage
from ventris.models.torch_decoder import TorchDecoder
from ventris.models.torch_layers import Loader
from ventris.models.torch_stack import TorchStack

CPU = torch.device("cpu")


@dataclass
class Pair:
    """The model whole and in two halves."""

    whole: TorchDecoder
    target: SplitDecoder
    second: SecondStage
    thread: Thread


def connected(name: str, cut: int, dtype: torch.dtype = torch.float32) -> Pair:
    """The tiny model of a family, with ``cut`` layers in its first half."""
    family = families.build(name)
    config, weights = family.config, family.weights
    loader = Loader(config.with_layers(cut, config.num_layers), weights, dtype, CPU, cut)
    second = SecondStage(TorchStack(loader), MemoryLedger())
    meeting = Meeting.open(Address(LOOPBACK, 0))

    def serve() -> None:
        # Of its own in every thread; sums of another number of threads would differ in their last bits.
        torch.set_num_threads(1)
        with suppress(RuntimeError):  # what ends it, the first half is told
            second.serve(Meeting.join(meeting.address, 30).connect(CPU, nccl=False))

    thread = Thread(target=serve, daemon=True)
    thread.start()
    link = Link(meeting.connect(CPU, nccl=False), 30, lambda: None)
    first = TorchDecoder(config.with_layers(0, cut), weights, dtype)
    target = SplitDecoder(config, first, link, loader.nbytes, lambda: link.close(10))
    return Pair(TorchDecoder(config, weights, dtype), target, second, thread)
