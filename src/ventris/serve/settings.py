"""The server's settings, declared once for Python, the command line and the docs."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ventris.engine.errors import BadInput

MIB = 1024 * 1024


class ServerSettings(BaseModel):
    """Where the server listens, and what its clients may ask for."""

    model_config = ConfigDict(extra="forbid")

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    served_name: str | None = Field(None, description="the model's name for clients; its own by default")
    api_keys: Path | None = Field(
        None, description="file with one key a line; VENTRIS_API_KEYS holds further ones, between commas"
    )
    without_keys: bool = Field(False, description="listen on other addresses than loopback without keys")
    allowed_hosts: list[str] = Field(
        default_factory=list, description="further host names that clients may use for this server"
    )
    cors_origins: list[str] = Field(
        default_factory=list, description="origins whose web pages may call the server"
    )
    without_playground: bool = Field(False, description="leave out the page at /")
    offered_drafts: list[str] = Field(
        default_factory=list, description="further drafters that clients may choose, written as for --draft"
    )

    max_batch: int = Field(16, ge=1, le=1024, description="requests that decode side by side")
    chunk: int = Field(64, ge=1, description="prompt tokens read in one step")
    cache_mib: int = Field(2048, ge=1, description="memory for all caches, in MiB")
    prefix_mib: int = Field(256, ge=0, description="of that, for finished requests' caches, in MiB")

    max_body_kib: int = Field(1024, ge=1, description="largest request body, in KiB")
    max_prompt: int | None = Field(None, ge=1, description="longest prompt, in tokens; the context if unset")
    max_output: int | None = Field(None, ge=1, description="longest answer, in tokens; the context if unset")
    max_choices: int = Field(16, ge=1, description="answers to one request: prompts times n")
    max_queue: int = Field(256, ge=0, description="answers that may wait for their turn")
    max_streams: int = Field(64, ge=1, description="answers that one key may have running or waiting")
    max_connections: int = Field(1024, ge=1, description="open connections")
    deadline: float = Field(600.0, gt=0, description="seconds until an answer must be finished")
    stall: float = Field(30.0, gt=0, description="seconds that a client may take to send or to read on")
    backlog: int = Field(4096, ge=1, description="tokens kept for a client that reads slowly")
    event_pause: float = Field(
        0.02,
        ge=0,
        le=1,
        description="seconds between events of an answer; those that come sooner go together",
    )
    compile_seconds: float = Field(5.0, gt=0, description="seconds for compiling a client's schema or regex")
    grace: float = Field(7.0, ge=0, description="seconds that running answers get at shutdown")
    log_prompts: bool = Field(False, description="write prompts and answers into the log")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def check_exposure(self, keys: int) -> None:
        """Refuse to serve everybody by accident.

        Raises:
            BadInput: if others can reach the server, there are no keys, and nobody said that this is meant.
        """
        if not self.loopback and not keys and not self.without_keys:
            raise BadInput(
                f"host {self.host} is open to other machines and there are no API keys; give --api-keys FILE "
                "(or VENTRIS_API_KEYS), or say --without-keys if that is meant"
            )
