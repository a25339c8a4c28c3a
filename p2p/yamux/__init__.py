"""Yamux: many flow-controlled streams over one secured connection (`/yamux/1.0.0`)."""

from p2p.yamux.budget import WindowBudget
from p2p.yamux.driver import YamuxConnection
from p2p.yamux.stream import YamuxStream
from p2p.yamux.wire import PROTOCOL

__all__ = ["PROTOCOL", "WindowBudget", "YamuxConnection", "YamuxStream"]
