"""multistream-select: the two ends of a stream agree on a protocol by name."""

from p2p.multistream.driver import handle, handle_lazily, select, select_lazily

__all__ = ["handle", "handle_lazily", "select", "select_lazily"]
