"""What can be set on a host, with defaults and where they come from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt


class HostConfig(BaseModel):
    """Deadlines in seconds and limits of one host; defaults are go-libp2p's unless said otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connect_timeout: PositiveFloat = 5.0
    """One transport connection (TCP's handshake)."""
    dial_timeout: PositiveFloat = 15.0
    """A whole dial: every address, security and muxer."""
    upgrade_timeout: PositiveFloat = 15.0
    """The whole upgrade of an inbound connection."""
    negotiation_timeout: PositiveFloat = 10.0
    """Choosing the protocol of one stream."""
    identify_timeout: PositiveFloat = 10.0
    """One identify exchange (go 5 s, js 10 s)."""
    max_half_open: PositiveInt = 64
    """Inbound connections in their upgrade at once; one more takes the place of the oldest."""
    max_connections: PositiveInt = 512
    """Connections in all; further inbound ones are closed."""
    agent: str = "atcp/2.0.0a1"
    """What identify says that we are."""
