"""Who dials whom, by the shape that a scenario names: links (dialer, dialed)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from sim.graph import clustered_graph, random_graph

if TYPE_CHECKING:
    from random import Random

    from sim.scenario.model import Topology

Link = tuple[int, int]  # dialer, dialed

MEMBERS_EACH = 16  # members of its task to whom a member is linked on average

ATTEMPTS = 50  # to find a node that can be dialed; with 9 of 10 behind a NAT one in 200 links is lost


def links(topology: Topology, peers: int, rng: Random) -> list[Link]:
    """Every link once. In "join" all others dial the first `bootstrap` nodes, which dial each other."""
    last = peers - 1
    match topology.kind:
        case "random":
            return random_graph(peers, topology.degree, rng)
        case "clusters":
            return clustered_graph(peers, topology.clusters, topology.degree, rng)
        case "line":
            return [(node, node + 1) for node in range(last)]
        case "ring":
            return [(node, node + 1) for node in range(last)] + ([(last, 0)] if peers > 2 else [])
        case "star":
            return [(node, 0) for node in range(1, peers)]
        case "full":
            return [(node, other) for node in range(peers) for other in range(node)]
        case "join":
            return [(node, first) for node in range(peers) for first in range(min(node, topology.bootstrap))]


def with_members(found: list[Link], groups: Iterable[Sequence[int]], rng: Random) -> list[Link]:
    """The links, and more between the members of each task: of few members each to all, of many each to some.

    Who is in a task is given the addresses of others in it. Without that, and without discovery, ten members
    among thousands would have no way to hear of each other.
    """
    known = {frozenset(link): link for link in found}
    for members in groups:
        for one, other in random_graph(len(members), MEMBERS_EACH, rng):
            link = (members[one], members[other])
            known.setdefault(frozenset(link), link)
    return list(known.values())


def through_nats(wanted: list[Link], dialable: Callable[[int], bool], peers: int, rng: Random) -> list[Link]:
    """The links that can come about: turned round where only the dialer can be dialed.

    Between two nodes that nobody can dial there is none; each of them dials somebody else instead.
    """
    kept: dict[Link, None] = {}
    for dialer, dialed in wanted:
        if dialable(dialed):
            kept[dialer, dialed] = None
        elif dialable(dialer):
            kept[dialed, dialer] = None
        else:
            for node in (dialer, dialed):
                other = _dialable_node(node, dialable, peers, rng)
                if other is not None and (other, node) not in kept:
                    kept[node, other] = None
    return list(kept)


def _dialable_node(node: int, dialable: Callable[[int], bool], peers: int, rng: Random) -> int | None:
    for _ in range(ATTEMPTS):
        other = rng.randrange(peers)
        if other != node and dialable(other):
            return other
    return None
