"""Kademlia: a routing table, and look-ups by which peers find one another, small values and content."""

from p2p.kad.driver import PROTOCOL, Kad, RecordNotFound, open_kad
from p2p.kad.lookup import Lookup
from p2p.kad.namespaces import (
    DEFAULT_VALIDATORS,
    InvalidRecord,
    Validator,
    content_key,
    open_value,
    peer_key,
    public_key_key,
    sign_value,
)
from p2p.kad.placement import Placement
from p2p.kad.providers import provider_key
from p2p.kad.records import OutdatedRecord, RecordRefused
from p2p.kad.table import RoutingTable

__all__ = [
    "DEFAULT_VALIDATORS",
    "PROTOCOL",
    "InvalidRecord",
    "Kad",
    "Lookup",
    "OutdatedRecord",
    "Placement",
    "RecordNotFound",
    "RecordRefused",
    "RoutingTable",
    "Validator",
    "content_key",
    "open_kad",
    "open_value",
    "peer_key",
    "provider_key",
    "public_key_key",
    "sign_value",
]
