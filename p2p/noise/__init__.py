"""The Noise security handshake and the encrypted stream behind it (`/noise`)."""

from p2p.noise.driver import NoiseStream, secure_inbound, secure_outbound
from p2p.noise.wire import PROTOCOL_ID

__all__ = ["PROTOCOL_ID", "NoiseStream", "secure_inbound", "secure_outbound"]
