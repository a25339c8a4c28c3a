from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.gossipsub.backoffs import Backoffs
from p2p.gossipsub.fanout import MAX_FANOUT, Fanout
from p2p.gossipsub.mesh import Mesh
from p2p.gossipsub.params import GossipsubParams
from p2p.gossipsub.score import PeerScores
from p2p.peer_id import PeerId
from tests.gossipsub.support import peer_number

PARAMS = GossipsubParams()
PEERS = [peer_number(number) for number in range(1, 41)]
A, B = PEERS[:2]


def make_mesh(candidates: dict[PeerId, bool] | None = None, seed: int = 0) -> Mesh:
    return scored_mesh(candidates, seed)[0]


def scored_mesh(candidates: dict[PeerId, bool] | None = None, seed: int = 0) -> tuple[Mesh, PeerScores]:
    scores = PeerScores(PARAMS.score)
    mesh = Mesh(PARAMS, random.Random(seed), scores)
    mesh.join("t", (), candidates or {}, 0.0)
    return mesh, scores


def inbound(count: int, start: int = 0) -> dict[PeerId, bool]:
    return dict.fromkeys(PEERS[start : start + count], False)


def fill(mesh: Mesh, count: int, outbound: bool = False) -> None:
    for peer in PEERS[:count]:
        assert mesh.handle_graft("t", peer, outbound=outbound, met=0.0, now=0.0) is None


def test_joining_grafts_as_many_as_the_mesh_aims_for() -> None:
    assert len(make_mesh(inbound(20)).members("t")) == 6
    assert len(make_mesh(inbound(3)).members("t")) == 3


def test_joining_prefers_the_peers_of_the_fanout() -> None:
    mesh = Mesh(PARAMS, random.Random(0), PeerScores(PARAMS.score))
    preferred = PEERS[10:14]
    grafted = mesh.join("t", [*preferred, PEERS[39]], inbound(20), 0.0)
    assert list(grafted[:4]) == preferred
    assert PEERS[39] not in grafted  # it is gone
    assert len(grafted) == 6


def test_joining_leaves_peers_in_backoff_alone() -> None:
    mesh = make_mesh(inbound(4))
    assert len(mesh.leave("t", 0.0)) == 4
    assert mesh.join("t", PEERS[:2], inbound(4), 11.9) == ()
    mesh.leave("t", 11.9)
    assert len(mesh.join("t", (), inbound(4), 12.0)) == 4  # 10 s and the slack


def test_a_new_candidate_is_admitted_only_below_the_lower_bound() -> None:
    mesh = make_mesh()
    assert [mesh.admit("t", peer, 0.0) for peer in PEERS[:6]] == [True] * 5 + [False]
    assert not mesh.admit("other", A, 0.0)


def test_a_member_that_comes_back_has_a_place_unless_the_mesh_is_full() -> None:
    mesh = make_mesh()
    fill(mesh, 11)
    assert not mesh.admit("t", PEERS[20], 0.0)
    assert mesh.admit("t", PEERS[20], 0.0, back=True)
    assert not mesh.admit("t", PEERS[21], 0.0, back=True)


def test_a_full_mesh_takes_only_peers_that_we_dialed() -> None:
    mesh = make_mesh()
    fill(mesh, 12)
    assert mesh.handle_graft("t", PEERS[20], outbound=False, met=0.0, now=0.0) is not None
    assert mesh.handle_graft("t", PEERS[21], outbound=True, met=0.0, now=0.0) is None
    assert len(mesh.members("t")) == 13


def test_a_graft_of_a_member_changes_nothing() -> None:
    mesh = make_mesh()
    fill(mesh, 12)
    assert mesh.handle_graft("t", A, outbound=False, met=0.0, now=0.0) is None
    assert len(mesh.members("t")) == 12


def test_a_graft_within_the_backoff_is_refused_and_starts_it_anew() -> None:
    mesh = make_mesh()
    fill(mesh, 1)
    mesh.handle_prune("t", A, None, 0.0)
    assert not mesh.contains("t", A)
    assert mesh.handle_graft("t", A, outbound=True, met=0.0, now=59.0) is not None
    assert mesh.handle_graft("t", A, outbound=True, met=0.0, now=60.0) is not None
    assert mesh.handle_graft("t", A, outbound=True, met=0.0, now=120.0) is None


def test_we_wait_a_little_longer_than_agreed_before_we_graft() -> None:
    mesh = make_mesh()
    mesh.handle_prune("t", A, 30, 0.0)
    assert mesh.maintain("t", {A: False}, 31.9).grafted == ()
    assert not mesh.admit("t", A, 31.9)
    assert mesh.maintain("t", {A: False}, 32.0).grafted == (A,)


@pytest.mark.parametrize(("asked", "waits"), [(2**64 - 1, 3600.0), (3601, 3600.0), (0, 60.0), (None, 60.0)])
def test_a_backoff_that_a_peer_asks_for_is_clamped(asked: int | None, waits: float) -> None:
    """CVE-2026-33040, CVE-2026-34219: 2^64-1 seconds."""
    mesh = make_mesh()
    mesh.handle_prune("t", A, asked, 100.0)
    assert mesh.backoffs.refuses("t", A, 100.0 + waits - 0.1)
    assert not mesh.backoffs.refuses("t", A, 100.0 + waits)


def test_a_shorter_backoff_does_not_end_a_longer_one() -> None:
    mesh = make_mesh()
    mesh.handle_prune("t", A, 100, 0.0)
    mesh.handle_prune("t", A, 1, 0.0)
    assert mesh.backoffs.refuses("t", A, 99.0)


def test_a_prune_for_a_topic_that_we_did_not_join_leaves_no_trace() -> None:
    mesh = make_mesh()
    mesh.handle_prune("other", A, 3600, 0.0)
    assert len(mesh.backoffs) == 0


def test_backoffs_are_bounded_and_forgotten_when_over() -> None:
    backoffs = Backoffs(slack=2.0, capacity=10)
    for peer in PEERS[:20]:
        backoffs.add("t", peer, 60.0, 0.0)
    assert len(backoffs) == 10
    backoffs.expire(61.9)
    assert len(backoffs) == 10
    backoffs.expire(62.0)
    assert len(backoffs) == 0


def test_a_heartbeat_fills_a_small_mesh_up_to_its_aim() -> None:
    mesh = make_mesh()
    fill(mesh, 4)
    change = mesh.maintain("t", inbound(30), 1.0)
    assert len(change.grafted) == 2
    assert len(mesh.members("t")) == 6
    assert mesh.maintain("t", inbound(30), 2.0).grafted == ()


def test_a_heartbeat_leaves_a_mesh_within_bounds_alone() -> None:
    for count in (5, 12):
        mesh = make_mesh()
        fill(mesh, count)
        change = mesh.maintain("t", inbound(40), 1.0)
        assert (change.grafted, change.pruned) == ((), ())


def test_a_heartbeat_prunes_a_large_mesh_down_to_its_aim_but_keeps_those_we_dialed() -> None:
    for seed in range(20):
        mesh = make_mesh(seed=seed)
        fill(mesh, 20, outbound=True)
        candidates = inbound(20) | {PEERS[3]: True, PEERS[7]: True}
        change = mesh.maintain("t", candidates, 1.0)
        assert len(change.pruned) == 14
        assert len(mesh.members("t")) == 6
        assert mesh.contains("t", PEERS[3])
        assert mesh.contains("t", PEERS[7])
        assert all(mesh.backoffs.refuses("t", peer, 60.9) for peer in change.pruned)


def test_a_heartbeat_grafts_peers_that_we_dialed_into_a_mesh_without_them() -> None:
    mesh = make_mesh()
    fill(mesh, 8)
    candidates = inbound(8) | dict.fromkeys(PEERS[20:25], True)
    change = mesh.maintain("t", candidates, 1.0)
    assert len(change.grafted) == 2
    assert all(peer in PEERS[20:25] for peer in change.grafted)


def test_a_peer_is_removed_from_one_topic_or_from_all() -> None:
    mesh = make_mesh(inbound(3))
    mesh.join("u", (), inbound(3), 0.0)
    assert mesh.remove(A, "t") == ["t"]
    assert mesh.remove(A) == ["u"]
    assert mesh.remove(A) == []
    assert len(mesh.backoffs) == 0


operations = st.lists(
    st.tuples(
        st.sampled_from(["graft", "prune", "remove", "admit", "heartbeat", "rejoin"]),
        st.sampled_from(PEERS[:20]),
        st.floats(0.0, 40.0),
        st.integers(0, 2**64 - 1),
    ),
    max_size=60,
)


@given(operations, st.integers(0, 1000), st.integers(0, 2**20 - 1))
def test_after_every_heartbeat_the_mesh_is_within_bounds(
    steps: list[tuple[str, PeerId, float, int]], seed: int, dialed: int
) -> None:
    candidates = {peer: bool(dialed >> place & 1) for place, peer in enumerate(PEERS[:20])}
    mesh, now = make_mesh(seed=seed), 0.0
    for operation, peer, wait, backoff in steps:
        now += wait
        match operation:
            case "graft":
                mesh.handle_graft("t", peer, outbound=candidates[peer], met=0.0, now=now)
            case "prune":
                mesh.handle_prune("t", peer, backoff, now)
                assert not mesh.contains("t", peer)
            case "remove":
                mesh.remove(peer)
            case "admit":
                mesh.admit("t", peer, now)
            case "rejoin":
                mesh.leave("t", now)
                mesh.join("t", (), candidates, now)
            case "heartbeat":
                change = mesh.maintain("t", candidates, now)
                members = mesh.members("t")
                free = [p for p in candidates if p not in members and not mesh.backoffs.forbids("t", p, now)]
                assert len(members) <= 12 + 2
                assert len(members) >= 5 or not free
                assert not any(peer in members for peer in change.pruned)
                assert all(peer in members for peer in change.grafted)


def fanout() -> Fanout:
    return Fanout(PARAMS, random.Random(0))


def test_fanout_keeps_its_peers_while_they_are_there() -> None:
    topics = fanout()
    first = topics.publish("t", PEERS, 0.0)
    assert len(first) == 6
    assert topics.publish("t", PEERS, 1.0) == first
    without = [peer for peer in PEERS if peer != first[0]]
    later = topics.maintain("t", without)
    assert later[:5] == first[1:]
    assert len(later) == 6


def test_fanout_ends_a_while_after_the_last_publication() -> None:
    topics = fanout()
    topics.publish("t", PEERS, 0.0)
    topics.publish("t", PEERS, 30.0)
    topics.expire(89.9)
    assert topics.topics == ["t"]
    topics.expire(90.0)
    assert topics.topics == []
    assert topics.leave("t") == []


def test_fanout_topics_are_bounded_and_the_longest_unused_goes() -> None:
    topics = fanout()
    for number in range(MAX_FANOUT):
        topics.publish(str(number), (), 0.0)
    topics.publish("0", (), 1.0)
    topics.publish("new", (), 1.0)
    assert len(topics.topics) == MAX_FANOUT
    assert "1" not in topics.topics
    assert {"0", "new"} <= set(topics.topics)


# Scores


def test_who_has_a_bad_score_is_pruned_refused_and_not_grafted() -> None:
    mesh, scores = scored_mesh()
    fill(mesh, 6)
    scores.set_application_score(A, -1.0)
    scores.handle_connected(A, None)
    change = mesh.maintain("t", inbound(6), 1.0)
    assert change.pruned == (A,)
    assert change.grafted == ()
    assert mesh.backoffs.refuses("t", A, 60.9)
    for later in (100.0, 200.0):
        assert mesh.handle_graft("t", A, outbound=True, met=0.0, now=later) is not None
        assert not mesh.admit("t", A, later)
    assert A not in mesh.maintain("t", inbound(6), 400.0).grafted
    mesh.leave("t", 500.0)
    assert A not in mesh.join("t", [A], inbound(3), 600.0)
    assert not scores._penalties  # to try was no fault


def test_the_best_stay_when_a_mesh_is_pruned_and_two_that_we_dialed() -> None:
    for seed in range(20):
        mesh, scores = scored_mesh(seed=seed)
        fill(mesh, 20, outbound=True)
        for peer in PEERS[10:14]:
            scores.set_application_score(peer, 3.0)
            scores.handle_connected(peer, None)
        candidates = inbound(20) | {PEERS[3]: True, PEERS[7]: True}
        change = mesh.maintain("t", candidates, 1.0)
        assert len(change.pruned) == 14
        assert mesh.contains("t", PEERS[3])
        assert mesh.contains("t", PEERS[7])
        assert all(mesh.contains("t", peer) for peer in PEERS[10:14])


def test_a_poor_mesh_gets_two_better_peers_when_it_is_time() -> None:
    mesh, scores = scored_mesh()
    fill(mesh, 6)
    for peer in PEERS[20:25]:
        scores.set_application_score(peer, 0.5)
        scores.handle_connected(peer, None)
    candidates = inbound(40)
    assert mesh.maintain("t", candidates, 1.0).grafted == ()
    grafted = mesh.maintain("t", candidates, 2.0, opportunistic=True).grafted
    assert len(grafted) == 2
    assert all(peer in PEERS[20:25] for peer in grafted)
    for peer in PEERS[:6]:
        scores.set_application_score(peer, 1.0)
        scores.handle_connected(peer, None)
    assert mesh.maintain("t", candidates, 3.0, opportunistic=True).grafted == ()  # good enough
    assert make_mesh().maintain("t", {}, 1.0, opportunistic=True).grafted == ()
