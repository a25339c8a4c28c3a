"""The addresses of WebSocket: /…/tcp/PORT followed by /ws, /wss, /tls/ws or /tls/sni/NAME/ws.

/wss and /tls/ws mean the same: js-libp2p rewrites one to the other, go-libp2p takes both.
Source: libp2p/specs websockets/README.md, "Addressing".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from multiaddr import Multiaddr

from p2p.address import parse_address, split_peer
from p2p.errors import InvalidAddress

_ADDRESS = re.compile(
    r"(?P<tcp>/(?P<kind>ip4|ip6|dns|dns4|dns6)/(?P<host>[^/]+)/tcp/(?P<port>[0-9]+))"
    r"/(?:ws|(?P<secure>wss|tls(?:/sni/(?P<sni>[^/]+))?/ws))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What a WebSocket address says."""

    tcp: Multiaddr  # the part that TCP dials or listens on
    host: str  # a name or an IP address
    port: int
    secure: bool
    sni: str | None  # the server's name where `host` does not tell it

    @property
    def server_name(self) -> str:
        """Whom the server's certificate must name."""
        return self.sni or self.host

    @property
    def authority(self) -> str:
        """The value of the HTTP header Host; a scheme's default port is left out."""
        name = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return name if self.port == (443 if self.secure else 80) else f"{name}:{self.port}"

    def on(self, tcp: Multiaddr, *, named: bool = True) -> Multiaddr:
        """The address that this one would be on another TCP address; `named` keeps the /sni part."""
        sni = f"/sni/{self.sni}" if named and self.sni is not None else ""
        return parse_address(f"{tcp}/tls{sni}/ws" if self.secure else f"{tcp}/ws")


def parse_endpoint(address: Multiaddr) -> Endpoint:
    """What `address` says, without a final /p2p/ part. Raises `InvalidAddress` for other kinds."""
    transport, _ = split_peer(address)
    match = _ADDRESS.fullmatch(str(transport))
    if match is None:
        raise InvalidAddress(
            f"cannot use {address}: WebSocket addresses end in /tcp/PORT/ws or /tcp/PORT/tls/ws"
        )
    return Endpoint(
        tcp=parse_address(match["tcp"]),
        host=match["host"],
        port=int(match["port"]),
        secure=match["secure"] is not None,
        sni=match["sni"],
    )
