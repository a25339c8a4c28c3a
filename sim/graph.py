"""Who is connected to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

BRIDGES = 2  # links from each cluster to the next


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


def clustered_graph(peers: int, clusters: int, degree: int, rng: Random) -> list[tuple[int, int]]:
    """Links of a connected graph: random ones within each cluster, a few from each cluster to the next.

    Node n is in cluster n modulo `clusters`, of which there are at most as many as peers.
    """
    groups = [range(number, peers, clusters) for number in range(clusters)]
    links: dict[frozenset[int], tuple[int, int]] = {}
    for group in groups:
        for one, other in random_graph(len(group), degree, rng):
            links[frozenset((group[one], group[other]))] = (group[one], group[other])
    for number, group in enumerate(groups):
        following = groups[(number + 1) % clusters]
        for _ in range(BRIDGES):
            one, other = rng.choice(group), rng.choice(following)
            links.setdefault(frozenset((one, other)), (one, other))
    return list(links.values())
