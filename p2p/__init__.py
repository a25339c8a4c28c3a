"""The overlay: a libp2p wire-compatible network on trio."""

from typing import TYPE_CHECKING, Any

from multiaddr import Multiaddr

from p2p.errors import P2PError
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

if TYPE_CHECKING:
    from p2p.host import Host, open_host

__all__ = ["Host", "KeyPair", "Multiaddr", "P2PError", "PeerId", "open_host"]


def __getattr__(name: str) -> Any:
    """`Host` and `open_host`, once somebody wants them: whoever wants a `PeerId` needs no network."""
    if name not in ("Host", "open_host"):
        raise AttributeError(f"module 'p2p' has no attribute {name!r}")
    from p2p import host

    return getattr(host, name)
