"""Discovery: how a peer with one bootstrap address comes to know all others."""

from p2p.discovery.driver import TARGET_PEERS, open_discovery

__all__ = ["TARGET_PEERS", "open_discovery"]
