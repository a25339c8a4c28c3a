"""The Noise security handshake (`/noise`)."""

from p2p.noise.driver import secure_inbound, secure_outbound
from p2p.noise.wire import PROTOCOL_ID

__all__ = ["PROTOCOL_ID", "secure_inbound", "secure_outbound"]
