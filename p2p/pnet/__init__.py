"""Private networks: only who has the pre-shared key can say anything at all (pnet)."""

from p2p.pnet.cipher import NONCE_SIZE
from p2p.pnet.driver import PrivateStream, protect
from p2p.pnet.wire import PreSharedKey

__all__ = ["NONCE_SIZE", "PreSharedKey", "PrivateStream", "protect"]
