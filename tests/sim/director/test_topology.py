"""Every shape is one connected network; NATs are dialed out of, never into."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.director.topology import MEMBERS_EACH, Link, links, through_nats, with_members
from sim.scenario.model import Topology

KINDS = ("random", "ring", "line", "star", "full", "clusters", "join")


def reached(found: list[Link], peers: int) -> int:
    """How many nodes are connected to node 0, itself included."""
    others: list[list[int]] = [[] for _ in range(peers)]
    for one, other in found:
        others[one].append(other)
        others[other].append(one)
    seen, pending = {0}, [0]
    while pending:
        for other in others[pending.pop()]:
            if other not in seen:
                seen.add(other)
                pending.append(other)
    return len(seen)


@pytest.mark.parametrize("kind", KINDS)
@given(peers=st.integers(2, 60), seed=st.integers(0, 100))
def test_every_shape_is_connected_and_has_each_link_once(kind: str, peers: int, seed: int) -> None:
    topology = Topology.model_validate({"kind": kind, "clusters": min(4, peers), "bootstrap": min(3, peers)})
    found = links(topology, peers, Random(seed))
    assert reached(found, peers) == peers
    assert len({frozenset(link) for link in found}) == len(found)
    assert all(one != other and 0 <= one < peers and 0 <= other < peers for one, other in found)


@pytest.mark.parametrize("kind", KINDS)
def test_one_node_alone_dials_nobody(kind: str) -> None:
    topology = Topology.model_validate({"kind": kind, "bootstrap": 1})
    if kind != "clusters":
        assert links(topology, 1, Random(1)) == []


def test_the_shapes_are_what_their_names_say() -> None:
    assert links(Topology(kind="line"), 4, Random(1)) == [(0, 1), (1, 2), (2, 3)]
    assert links(Topology(kind="ring"), 4, Random(1)) == [(0, 1), (1, 2), (2, 3), (3, 0)]
    assert links(Topology(kind="star"), 4, Random(1)) == [(1, 0), (2, 0), (3, 0)]
    assert len(links(Topology(kind="full"), 10, Random(1))) == 45
    assert links(Topology(kind="join", bootstrap=2), 4, Random(1)) == [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert len(links(Topology(degree=8), 100, Random(1))) == 400


def test_clusters_are_joined_by_a_few_links() -> None:
    found = links(Topology(kind="clusters", clusters=3, degree=6), 60, Random(1))
    between = [link for link in found if link[0] % 3 != link[1] % 3]
    assert 3 <= len(between) <= 6


@given(size=st.integers(1, 60), seed=st.integers(0, 20))
def test_members_of_a_task_are_linked_with_each_other(size: int, seed: int) -> None:
    members = sorted(Random(seed).sample(range(200), size))
    before = links(Topology(kind="line"), 200, Random(1))
    found = with_members(before, [members], Random(1))
    assert found[: len(before)] == before
    assert len({frozenset(link) for link in found}) == len(found)
    places = {node: place for place, node in enumerate(members)}
    between = [link for link in found if link[0] in places and link[1] in places]
    assert len(between) >= min(size * (size - 1) // 2, size * MEMBERS_EACH // 2)
    assert reached([(places[one], places[other]) for one, other in between], size) == size


@given(
    peers=st.integers(2, 40), closed=st.lists(st.booleans(), min_size=40, max_size=40), seed=st.integers(0, 9)
)
def test_nobody_dials_into_a_nat(peers: int, closed: list[bool], seed: int) -> None:
    found = through_nats(
        links(Topology(), peers, Random(seed)), lambda node: not closed[node], peers, Random(seed)
    )
    assert not any(closed[dialed] for _, dialed in found)
    assert len({frozenset(link) for link in found}) == len(found)
    if not all(closed[:peers]):
        behind = [node for node in range(peers) if closed[node]]
        dialers = {dialer for dialer, _ in found}
        assert len([node for node in behind if node not in dialers]) <= len(behind) // 4
