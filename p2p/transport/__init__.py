"""Transports: how a raw byte stream to another peer comes to be."""

from p2p.transport.memory import MemoryNetwork, MemoryTransport
from p2p.transport.tcp import TcpTransport
from p2p.transport.websocket import WebSocketTransport

__all__ = ["MemoryNetwork", "MemoryTransport", "TcpTransport", "WebSocketTransport"]
