"""libp2p's TLS 1.3 (`/tls/1.0.0`), on pyOpenSSL; nothing outside this package imports that."""

from p2p.tls.driver import TlsIdentity, secure_inbound, secure_outbound

PROTOCOL_ID = "/tls/1.0.0"

__all__ = ["PROTOCOL_ID", "TlsIdentity", "secure_inbound", "secure_outbound"]
