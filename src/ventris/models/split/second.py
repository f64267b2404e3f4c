"""The second process of a split model: its layers, the twins of the caches, and the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ventris import __version__
from ventris.engine.errors import BadInput, StageLost
from ventris.engine.ledger import MemoryLedger
from ventris.engine.target import Rows
from ventris.models.source import resolve
from ventris.models.split.cache import Twins
from ventris.models.split.plan import START_SECONDS, gpu_name, same_model_digest
from ventris.models.split.rendezvous import Address, Meeting
from ventris.models.split.wire import FOREVER, Wire
from ventris.models.torch_layers import Loader
from ventris.models.torch_stack import TorchStack

SEND_SECONDS = 60.0
"""How long the first process may take to accept an answer."""


class SecondStage:
    """Answers the questions of a :class:`~ventris.models.split.decoder.SplitDecoder`.

    Args:
        stack: The layers behind the cut.
        ledger: Books their caches; the first process sees to it that they stay within its budget.
    """

    def __init__(self, stack: TorchStack, ledger: MemoryLedger | None = None) -> None:
        self.stack = stack
        self.ledger = ledger or MemoryLedger()
        self.twins = Twins(lambda: stack.new_cache(1, self.ledger))

    def serve(self, wire: Wire) -> None:
        """Answer until the first process ends.

        Raises:
            StageLost: if it ends without a word.
        """
        while True:
            question, rows = wire.receive(FOREVER)
            if question["what"] == "end":
                return
            try:
                answer: tuple[dict[str, Any], Tensor | None] = ({}, self.answer(question, rows))
            except BadInput as refused:
                answer = {"refused": "BadInput", "because": str(refused)}, None
            except (MemoryError, torch.OutOfMemoryError) as refused:
                answer = {"refused": "MemoryError", "because": f"in the second stage: {refused}"}, None
            except Exception as bug:
                wire.send({"failed": f"{type(bug).__name__}: {bug}"}, SEND_SECONDS)
                raise
            message, back = answer
            wire.send(message, SEND_SECONDS, back)

    @torch.no_grad()
    def answer(self, question: dict[str, Any], hidden: Tensor | None) -> Tensor:
        """Obey the commands, run the pass, and return the rows that are asked for, one behind the other."""
        try:
            for command in question["commands"]:
                self.twins.obey(*command)
        except (MemoryError, torch.OutOfMemoryError) as error:
            # The twins are no twins any more: this is the end, and no refusal of one pass.
            raise RuntimeError(f"no memory for a cache: {error}") from None
        assert hidden is not None
        batch = [self._rows(described) for described in question["rows"]]
        (first, last), taps = question["layers"], question["taps"]
        out, tapped = self.stack.run_layers(batch, hidden, first, last, taps)
        chosen = torch.tensor(question["nodes"], dtype=torch.int64, device=out.device)
        return torch.cat([*(tapped[tap] for tap in taps), out[chosen]])

    def _rows(self, described: dict[str, Any]) -> Rows:
        cache = self.twins[described["cache"]]
        if cache.length != described["length"]:
            raise RuntimeError(f"a cache of {described['length']} rows has {cache.length} here")
        start, parents = described["start"], described["parents"]
        # Layers read hidden rows; how many tokens there are is all that counts.
        return Rows(cache, [0] * (len(parents) - start), parents, start, sees=described["sees"])


def run_second_stage(
    address: Address,
    name: str | Path,
    device: torch.device,
    threads: int | None = None,
    seconds: float = START_SECONDS,
) -> None:
    """Join a first process, take over the layers that it gives away, and serve until it ends.

    Args:
        name: The model, as here known; its weights must be those of the first process.
        threads: CPU threads; ``None`` for torch's own choice.
        seconds: Longest wait for the first process.

    Raises:
        BadInput: if the model cannot be split or is another one.
        StageLost: if there is no first process, or it ends without a word.
    """
    source = resolve(name)
    config = source.config
    if config is None:
        raise BadInput(f"{source.name} is of a kind that only transformers can run, and cannot be split")
    if threads is not None and device.type == "cpu":
        torch.set_num_threads(threads)
    meeting = Meeting.join(address, seconds)
    meeting.say(
        "second", {"ventris": __version__, "model": same_model_digest(source), "gpu": gpu_name(device)}
    )
    wanted = meeting.hear("first", seconds, _unknown)
    if "refused" in wanted:
        meeting.say("understood", {})
        raise BadInput(wanted["refused"])
    if config.context_length != wanted["context_length"]:
        config = config.with_context_length(wanted["context_length"])
    first, last = wanted["layers"]
    dtype = getattr(torch, wanted["dtype"])
    try:
        loader = Loader(config.with_layers(first, last), source.weights, dtype, device, first)
        stage = SecondStage(TorchStack(loader))
    except Exception as error:
        meeting.say("ready", {"refused": str(error)})
        raise
    meeting.say("ready", {"weight_bytes": loader.nbytes})
    wire = meeting.connect(device, wanted["nccl"])
    try:
        stage.serve(wire)
    except StageLost as lost:
        raise StageLost(f"the first stage is lost: {lost}") from None


def _unknown() -> None:
    """How the first process ended is not known here."""
