"""Identify: each side of a connection says who it is, what it speaks, and how it sees the other."""

from p2p.identify.driver import PROTOCOL, PUSH_PROTOCOL, receive_info, send_info
from p2p.identify.service import IdentifyService
from p2p.identify.wire import PeerInfo

__all__ = ["PROTOCOL", "PUSH_PROTOCOL", "IdentifyService", "PeerInfo", "receive_info", "send_info"]
