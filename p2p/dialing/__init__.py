"""Dialing: names become addresses, addresses race, the first that is fully upgraded wins."""

from p2p.dialing.dialer import Dialer
from p2p.dialing.lookup import Lookup, SystemLookup

__all__ = ["Dialer", "Lookup", "SystemLookup"]
