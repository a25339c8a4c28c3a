"""Limits: which connections and streams are let in, and which connections go when there are too many."""

from p2p.limits.addresses import AddressLimits
from p2p.limits.connections import ConnectionManager
from p2p.limits.streams import StreamLimit

__all__ = ["AddressLimits", "ConnectionManager", "StreamLimit"]
