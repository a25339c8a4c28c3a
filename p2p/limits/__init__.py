"""Limits: which connections are let in, and which ones go when there are too many."""

from p2p.limits.addresses import AddressLimits
from p2p.limits.connections import ConnectionManager

__all__ = ["AddressLimits", "ConnectionManager"]
