"""The overlay: a libp2p wire-compatible network on trio."""

from multiaddr import Multiaddr

from p2p.errors import P2PError
from p2p.host import Host, open_host
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

__all__ = ["Host", "KeyPair", "Multiaddr", "P2PError", "PeerId", "open_host"]
