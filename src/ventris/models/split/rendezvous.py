"""How two processes find each other: a store of torch.distributed at an address, and a group through it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from ventris.engine.errors import BadInput, StageLost
from ventris.models.split.wire import Wire

LOOPBACK = "127.0.0.1"
GROUP_SECONDS = 60.0
"""How long the two may take to connect once both are there."""

POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Address:
    """A host's name or number, and a port."""

    host: str
    port: int

    @classmethod
    def read(cls, text: str) -> Address:
        """``HOST:PORT``.

        Raises:
            BadInput: if it is something else.
        """
        host, _, port = text.rpartition(":")
        if not _a_name(host) or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
            raise BadInput(f"{text!r} is no address; write HOST:PORT, as in 10.0.0.1:29500")
        if host == "0.0.0.0":
            raise BadInput("0.0.0.0 is nobody's address; give the one by which the other machine reaches it")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Meeting:
    """What the two say to each other until they are connected, by a store of torch.distributed.

    Attributes:
        address: Where the first process listens.
    """

    def __init__(self, store: Any, rank: int, address: Address) -> None:
        self.address = address
        self._store = store
        self._rank = rank

    @classmethod
    def open(cls, address: Address) -> Meeting:
        """The first process's: listen at an address, and nowhere else; port 0 takes a free one.

        Raises:
            BadInput: if it cannot listen there.
        """
        try:
            listener = socket.create_server((address.host, address.port))
        except OSError as error:
            raise BadInput(
                f"cannot listen at {address}: {error.strerror or error}; give a free port and an address of "
                "this machine"
            ) from None
        port = listener.getsockname()[1]
        limit = timedelta(seconds=GROUP_SECONDS)
        store = TCPStore(
            address.host,
            port,
            is_master=True,
            wait_for_workers=False,
            timeout=limit,
            master_listen_fd=listener.detach(),
        )
        return cls(store, 0, Address(address.host, port))

    @classmethod
    def join(cls, address: Address, seconds: float) -> Meeting:
        """The second process's.

        Raises:
            StageLost: if nobody listens at the address for so long.
        """
        limit = timedelta(seconds=seconds)
        try:
            return cls(TCPStore(address.host, address.port, is_master=False, timeout=limit), 1, address)
        except RuntimeError:
            raise StageLost(
                f"there is no first stage at {address}; start one with --stages 2 --rendezvous {address}"
            ) from None

    def say(self, what: str, facts: dict[str, Any]) -> None:
        """Leave facts for the other process.

        Raises:
            StageLost: if it is gone.
        """
        self._ask(lambda: self._store.set(what, json.dumps(facts)))

    def hear(self, what: str, seconds: float, fate: Callable[[], str | None]) -> dict[str, Any]:
        """What the other process has said, as soon as it has.

        Args:
            fate: Says what ended the other process, if it has ended.

        Raises:
            StageLost: if it ends, or says nothing for so long.
        """
        last = time.monotonic() + seconds
        while not self._ask(lambda: self._store.check([what])):
            if (ended := fate()) is not None:
                raise StageLost(ended)
            if time.monotonic() > last:
                raise StageLost(f"nothing was heard at {self.address} for {seconds:g} seconds")
            time.sleep(POLL_SECONDS)
        facts: dict[str, Any] = json.loads(self._ask(lambda: self._store.get(what)))
        return facts

    def connect(self, device: torch.device, nccl: bool) -> Wire:
        """The connection, once both processes ask for it.

        Args:
            nccl: Whether rows go from GPU to GPU; each process needs one of its own then.

        Raises:
            StageLost: if they cannot reach each other.
        """
        # Groups of their own, beside whatever this process does with torch.distributed otherwise.
        messages, rows = (PrefixStore(name, self._store) for name in ("messages", "rows"))
        group = self._ask(lambda: dist.ProcessGroupGloo(messages, self._rank, 2, self._options()))
        rows_group = None
        if nccl:
            rows_group = dist.ProcessGroupNCCL(rows, self._rank, 2, dist.ProcessGroupNCCL.Options())
        return Wire(group, 1 - self._rank, device, rows_group)

    def _options(self) -> Any:
        options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        # Named, because gloo else takes the address of the machine's name, which may lead nowhere.
        own_host = _own_number(self.address) if self._rank else self.address.host
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=own_host)]
        options._timeout = timedelta(seconds=GROUP_SECONDS)
        return options

    @staticmethod
    def _ask(action: Callable[[], Any]) -> Any:
        try:
            return action()
        except RuntimeError as error:
            raise StageLost(f"the two stages cannot reach each other: {error}") from None


def _a_name(host: str) -> bool:
    """Whether a host can be looked up by this at all; one that cannot makes sockets raise a TypeError."""
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False


def _own_number(peer: Address) -> str:
    """This machine's number on the way to ``peer``."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer.host, peer.port))
        return str(probe.getsockname()[0])
