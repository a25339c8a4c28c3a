"""Who is connected to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random


def random_graph(peers: int, degree: int, rng: Random) -> list[tuple[int, int]]:
    """Links (dialer, dialed) of a connected graph: a ring, then random ones up to a mean of `degree`."""
    links: dict[frozenset[int], tuple[int, int]] = {}
    for number in range(peers if peers > 1 else 0):
        links.setdefault(frozenset((number, (number + 1) % peers)), (number, (number + 1) % peers))
    wanted = min(peers * degree // 2, peers * (peers - 1) // 2)
    while len(links) < wanted:
        one, other = rng.sample(range(peers), 2)
        links.setdefault(frozenset((one, other)), (one, other))
    return list(links.values())
