"""Where adversaries are that share a few public addresses, as somebody with few machines has them."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.scenario.model import Adversary

FIRST = IPv4Address("11.0.0.0")  # of a network that is public, and whose owner shows none of it


def shared_addresses(adversaries: Mapping[int, Adversary]) -> dict[int, IPv4Address]:
    """The address of each node that does not have one to itself, dealt out in turn."""
    found: dict[int, IPv4Address] = {}
    for node, adversary in sorted(adversaries.items()):
        if adversary.addresses:
            found[node] = FIRST + len(found) % adversary.addresses
    return found
