"""Identify: each side of a new connection says who it is and what it speaks."""

from p2p.identify.driver import PROTOCOL, PUSH_PROTOCOL, receive_info, send_info
from p2p.identify.wire import PeerInfo

__all__ = ["PROTOCOL", "PUSH_PROTOCOL", "PeerInfo", "receive_info", "send_info"]
