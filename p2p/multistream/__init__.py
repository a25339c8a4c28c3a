"""multistream-select: the two ends of a stream agree on a protocol by name."""

from p2p.multistream.driver import handle, select

__all__ = ["handle", "select"]
