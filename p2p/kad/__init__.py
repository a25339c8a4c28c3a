"""Kademlia: a routing table and look-ups by which peers find one another."""

from p2p.kad.driver import PROTOCOL, Kad, open_kad
from p2p.kad.lookup import Lookup
from p2p.kad.table import RoutingTable

__all__ = ["PROTOCOL", "Kad", "Lookup", "RoutingTable", "open_kad"]
