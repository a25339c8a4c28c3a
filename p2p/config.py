"""What can be set on a host, with defaults and where they come from.

A plain dataclass: every peer pays for what this module imports, in start-up time and memory.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from p2p.errors import InvalidInput

SECURITY = ("noise", "tls")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """Deadlines in seconds and limits of one host; defaults are go-libp2p's unless said otherwise.

    Raises `InvalidInput` for a number that is not positive, an unknown security protocol, or none.
    """

    security: tuple[str, ...] = SECURITY
    """What is offered and accepted, the preferred first: "noise", "tls"."""
    connect_timeout: float = 5.0
    """One transport connection (TCP's handshake)."""
    dial_timeout: float = 15.0
    """A whole dial: names, every address, security and muxer."""
    upgrade_timeout: float = 15.0
    """The whole upgrade of an inbound connection."""
    negotiation_timeout: float = 10.0
    """Choosing the protocol of one stream."""
    identify_timeout: float = 10.0
    """One identify exchange (go 5 s, js 10 s)."""
    max_dials: int = 160
    """Dials at once; further ones wait within their deadline."""
    max_half_open: int = 64
    """Inbound connections in their upgrade at once; one more takes the place of the oldest."""
    max_connections: int = 512
    """Connections in all; further inbound ones are closed."""
    low_water: int = 160
    """How many connections a trim leaves."""
    high_water: int = 192
    """More connections than this are trimmed."""
    grace: float = 60.0
    """Seconds for which a new connection is not trimmed (go 20 s, its daemon 60 s)."""
    window_memory: int = 128 << 20
    """Bytes that the receive windows of all streams may grow by, over the 256 KiB of each (go: 128 MiB)."""
    max_per_ip: int = 8
    """Inbound connections of one IPv4 address or one IPv6 /56 at once."""
    max_per_net: int = 64
    """Inbound connections of one IPv6 /48 at once."""
    accept_rate: float = 0.2
    """New inbound connections a second of one IPv4 address or one IPv6 /56, after a burst."""
    accept_burst: int = 16
    """New inbound connections of one IPv4 address or one IPv6 /56 before `accept_rate` holds."""
    limit_loopback: bool = False
    """Whether the four limits above hold for loopback too: several peers of one machine come from there."""
    agent: str = "atcp/2.0.0a1"
    """What identify says that we are."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) in (int, float) and not value > 0:
                raise InvalidInput(f"{field.name} is {value}: it must be over 0")
        if not self.security or not set(self.security) <= set(SECURITY):
            raise InvalidInput(f"security is {self.security!r}: name one or both of {SECURITY!r}")
        if self.low_water > self.high_water:
            raise InvalidInput(f"low_water {self.low_water} is over high_water {self.high_water}")
