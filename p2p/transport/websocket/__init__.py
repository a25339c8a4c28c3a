"""WebSocket: a libp2p byte stream in binary messages over HTTP/1.1, plain (/ws) or in TLS (/tls/ws, /wss)."""

from p2p.transport.websocket.transport import WebSocketTransport

__all__ = ["WebSocketTransport"]
