from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import InvalidInput
from p2p.gossipsub import conduct
from p2p.gossipsub import score as module
from p2p.gossipsub.params import ScoreParams
from p2p.gossipsub.score import PeerScores
from tests.gossipsub.support import peer_number

PARAMS = ScoreParams()
PEERS = [peer_number(number) for number in range(1, 21)]
A, B, C = PEERS[:3]


def make_scores(*peers: object, **settings: float) -> PeerScores:
    """The scores of A and B, or of `peers`, connected, after a first heartbeat."""
    scores = PeerScores(replace(PARAMS, **settings))  # type: ignore[arg-type]
    for peer in peers or (A, B):
        scores.handle_connected(peer, None)  # type: ignore[arg-type]
    scores.handle_heartbeat(0.0)
    return scores


def pass_time(scores: PeerScores, begin: int, end: int) -> None:
    for second in range(begin, end):
        scores.handle_heartbeat(float(second))


def deliver(scores: PeerScores, second: int, *, silent: object = None, count: int = 10) -> None:
    """A second in which `count` messages come from A, and from everybody but `silent` soon after."""
    for number in range(count):
        message_id = b"%d %d" % (second, number)
        scores.handle_first("t", A, message_id, float(second))
        for peer in (B, C):
            if peer != silent:
                scores.handle_copy("t", peer, message_id, second + 0.5)
    scores.handle_heartbeat(float(second))


def test_a_stranger_has_the_score_zero() -> None:
    scores = make_scores()
    assert scores.score(A) == scores.score(C) == 0.0
    assert scores.scores() == {A: 0.0, B: 0.0}
    assert scores.graylisted() == []
    assert not scores.may_introduce(A)


# Credit: P1, P2


def test_time_in_the_mesh_and_first_deliveries_are_credit_up_to_their_caps() -> None:
    scores = make_scores()
    scores.handle_grafted("t", A, 0.0)
    pass_time(scores, 1, 11)
    assert scores.score(A) == pytest.approx(0.1)
    pass_time(scores, 11, 200)
    assert scores.score(A) == pytest.approx(0.5)
    for number in range(100):
        scores.handle_first("t", A, b"%d" % number, 200.0)
    scores.handle_heartbeat(200.0)
    assert scores.score(A) == pytest.approx(0.5 + 2.5)
    scores.handle_heartbeat(201.0)
    assert scores.score(A) == pytest.approx(0.5 + 2.5 * 0.98)
    assert scores.score(B) == 0.0


def test_credit_decays_to_nothing_and_leaves_no_trace() -> None:
    scores = make_scores()
    scores.handle_first("t", A, b"id", 0.0)
    pass_time(scores, 1, 35)
    assert scores.score(A) == pytest.approx(0.5 * 0.98**34)
    pass_time(scores, 35, 400)
    assert scores.score(A) == 0.0
    assert not scores._conduct


def test_credit_of_many_topics_is_capped_and_hides_no_flood() -> None:
    """CVE-2022-47547: a score that stays positive whatever a peer does."""
    scores = make_scores()
    for topic in range(100):
        for number in range(10):
            scores.handle_first(str(topic), A, b"%d" % number, 0.0)
    scores.handle_heartbeat(1.0)
    assert scores.score(A) == PARAMS.credit_cap
    for _ in range(10):
        scores.handle_invalid("0", A)
    assert scores.is_graylisted(A)


# P3, P3b


def test_who_withholds_is_below_zero_whatever_its_credit_elsewhere() -> None:
    """CVE-2022-47547: a peer that never forwards in one topic, and is exemplary in others."""
    scores = make_scores(A, B, C)
    assert scores.expect_rate("t", 10.0)
    for peer in (A, B, C):
        scores.handle_grafted("t", peer, 0.0)
    for second in range(1, 20):
        for topic in range(20):
            scores.handle_first(f"other {topic}", B, b"%d" % second, float(second))
        deliver(scores, second, silent=B)
    assert scores.score(B) == pytest.approx(PARAMS.credit_cap + PARAMS.shortfall_weight)
    assert scores.is_negative(B)
    assert scores.may_gossip(B)
    assert scores.score(A) > 0
    assert scores.score(C) > 0
    scores.expect_rate("t", 0.0)
    assert scores.score(B) == PARAMS.credit_cap
    scores.expect_rate("t", 10.0)
    for second in range(20, 24):
        deliver(scores, second, silent=B)
    scores.handle_pruned("t", B)
    assert scores.score(B) == pytest.approx(PARAMS.credit_cap + PARAMS.failure_weight)  # P3b
    pass_time(scores, 24, 44)
    assert scores.score(B) > PARAMS.failure_weight


def test_a_copy_counts_once_and_only_within_the_window_and_the_mesh() -> None:
    scores = make_scores(A, B, C)
    scores.expect_rate("t", 10.0)
    scores.handle_grafted("t", B, 0.0)
    scores.handle_first("t", A, b"id", 1.0)
    scores.handle_copy("t", B, b"id", 3.1)
    assert scores._conduct["t"][B].deliveries == 0
    scores.handle_copy("t", B, b"id", 2.9)
    scores.handle_copy("t", B, b"id", 2.9)
    scores.handle_copy("t", C, b"id", 1.5)
    scores.handle_copy("t", B, b"unknown", 1.5)
    scores.handle_copy("u", B, b"id", 1.5)
    assert scores._conduct["t"][B].deliveries == 1
    assert scores._conduct["t"][C].deliveries == 0


def test_a_silent_topic_and_one_without_a_rate_condemn_nobody() -> None:
    scores = make_scores(A, B, C)
    scores.expect_rate("t", 10.0)
    for topic in ("t", "u"):
        scores.handle_grafted(topic, B, 0.0)
    for number in range(1000):
        scores.handle_first("u", A, b"%d" % number, 1.0)
    pass_time(scores, 1, 100)
    assert scores.score(B) > 0
    scores.expect_rate("t", 0.0)
    assert not scores.rates
    for second in range(100, 120):
        deliver(scores, second, silent=B)
    assert scores.score(B) > 0


def test_a_newcomer_has_time_before_it_is_judged() -> None:
    scores = make_scores(A, B, C)
    scores.expect_rate("t", 10.0)
    for second in range(1, 10):
        deliver(scores, second)
    scores.handle_grafted("t", B, 9.5)
    for second in range(10, 14):
        deliver(scores, second, silent=B)
        assert not scores.is_negative(B)
    for second in range(14, 16):
        deliver(scores, second, silent=B)
    assert scores.is_negative(B)


def test_what_is_kept_of_rates_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RATED", 2)
    monkeypatch.setattr(conduct, "MAX_RECENT", 3)
    scores = make_scores()
    assert scores.expect_rate("t", 1.0)
    assert scores.expect_rate("u", 1.0)
    assert not scores.expect_rate("v", 1.0)
    assert scores.expect_rate("t", 2.0)
    for number in range(10):
        scores.handle_first("t", A, b"%d" % number, 0.5)
    assert len(scores.rates["t"]) == 3
    scores.handle_heartbeat(3.0)
    assert not scores.rates["t"]


# P4 to P7


def test_ten_invalid_messages_graylist_and_a_few_do_not() -> None:
    scores = make_scores()
    for count in range(1, 11):
        scores.handle_invalid("t", A)
        assert scores.score(A) == -(count**2)
        assert scores.is_graylisted(A) == (count >= 9)
        assert scores.may_gossip(A) == (count <= 3)
    assert scores.graylisted() == [A]
    assert scores.above([A, B], PARAMS.publish_threshold) == [B]
    pass_time(scores, 1, 60)
    assert not scores.is_graylisted(A)


def test_the_application_has_its_say_before_and_after_a_peer_comes() -> None:
    scores = make_scores()
    scores.set_application_score(A, -100.0)
    assert scores.is_graylisted(A)
    scores.handle_heartbeat(1.0)
    assert scores.is_graylisted(A)
    scores.set_application_score(A, 12.0)
    assert scores.may_introduce(A)
    scores.set_application_score(A, 0.0)
    assert scores.score(A) == 0.0
    scores.set_application_score(C, -1.0)
    assert scores.score(C) == 0.0
    scores.handle_connected(C, None)
    assert scores.score(C) == -1.0


def test_the_table_of_the_application_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_APPLICATION", 2)
    scores = make_scores(A, B, C)
    for peer in (A, B, A, C):
        scores.set_application_score(peer, -5.0)
    assert [scores.score(peer) for peer in (A, B, C)] == [-5.0, 0.0, -5.0]


@pytest.mark.parametrize(
    ("address", "lowered"),
    [
        ("1.2.3.4", True),
        ("2001:4860::1", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("192.168.1.7", False),
        ("::1", False),
        ("fd00::1", False),
    ],
)
def test_many_peers_with_one_public_address_lose_score(address: str, lowered: bool) -> None:
    scores = PeerScores(PARAMS)
    for peer in PEERS[:10]:
        scores.handle_connected(peer, ip_address(address))
    scores.handle_connected(PEERS[10], ip_address("1.2.3.5"))
    scores.handle_connected(PEERS[11], None)
    scores.handle_heartbeat(0.0)
    assert [scores.score(peer) for peer in PEERS[:10]] == [-20.0 if lowered else 0.0] * 10
    assert scores.score(PEERS[10]) == scores.score(PEERS[11]) == 0.0
    for peer in PEERS[:2]:
        scores.handle_disconnected(peer, 0.0)
    scores.handle_connected(PEERS[2], ip_address(address))  # a new stream is no new neighbour
    scores.handle_heartbeat(0.5)
    assert not any(scores.is_negative(peer) for peer in PEERS)


def test_addresses_of_one_ipv6_customer_count_as_one() -> None:
    scores = PeerScores(PARAMS)
    for number, peer in enumerate(PEERS[:9]):
        scores.handle_connected(peer, ip_address(f"2001:4860:0:{number}::1"))
    scores.handle_heartbeat(0.0)
    assert scores.is_negative(A)
    for peer in PEERS[:9]:
        scores.handle_disconnected(peer, 0.0)
    assert not scores._colocated


def test_a_broken_rule_or_two_are_forgiven_and_more_are_not() -> None:
    scores = make_scores()
    scores.handle_misbehaviour(A, 2.0, 0.0)
    assert scores.score(A) == 0.0
    scores.handle_misbehaviour(A, 1.0, 0.0)
    assert scores.score(A) == -10.0
    scores.handle_misbehaviour(A, 2.0, 0.0)
    assert scores.is_graylisted(A)
    pass_time(scores, 1, 400)
    assert scores.score(A) == 0.0
    assert not scores._penalties


# Who comes back


def test_penalties_survive_a_reconnection_and_do_not_decay_meanwhile_but_credit_goes() -> None:
    scores = make_scores()
    scores.handle_grafted("t", A, 0.0)
    for number in range(10):
        scores.handle_first("t", A, b"%d" % number, 0.0)
    scores.handle_invalid("t", A)
    scores.handle_misbehaviour(A, 3.0, 0.0)
    scores.handle_disconnected(A, 0.0)
    assert scores.score(A) == 0.0
    assert not scores.is_negative(A)
    pass_time(scores, 1, 1000)
    scores.handle_connected(A, None)
    assert scores.score(A) == -11.0
    pass_time(scores, 1000, 1010)
    assert -11.0 < scores.score(A) < 0


def test_no_heartbeats_while_nobody_is_there_are_no_time_to_repent() -> None:
    scores = make_scores()
    scores.handle_invalid("t", A)
    scores.handle_disconnected(A, 0.0)
    scores.handle_connected(A, None)
    scores.handle_heartbeat(3000.0)
    assert scores.score(A) < -0.9


def test_who_leaves_without_a_penalty_leaves_no_trace() -> None:
    scores = make_scores()
    scores.handle_grafted("t", A, 0.0)
    scores.handle_first("t", A, b"id", 0.0)
    scores.handle_disconnected(A, 0.0)
    scores.handle_disconnected(C, 0.0)  # nobody knew it
    assert not scores._retained
    assert A not in scores._conduct["t"]


def test_penalties_of_the_absent_are_forgotten_after_an_hour_or_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = make_scores()
    for peer in (A, B):
        scores.handle_invalid("t", peer)
    scores.handle_disconnected(A, 0.0)
    scores.handle_disconnected(B, 10.0)
    scores.handle_heartbeat(3600.0)
    assert list(scores._retained) == [B]
    scores.handle_misbehaviour(C, 5.0, 3600.0)  # a promise that it broke by leaving
    scores.handle_heartbeat(3610.0)
    assert list(scores._retained) == [C]
    monkeypatch.setattr(module, "MAX_RETAINED", 1)
    scores.handle_misbehaviour(A, 5.0, 3610.0)
    scores.handle_misbehaviour(A, 5.0, 3611.0)
    assert list(scores._retained) == list(scores._penalties) == [A]


# Whatever happens

steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["connect", "leave", "graft", "prune", "first", "copy", "invalid", "misbehave", "say", "wait"]
        ),
        st.sampled_from(PEERS[:5]),
        st.sampled_from(["t", "u"]),
        st.integers(0, 5),
    ),
    max_size=120,
)


@given(steps)
def test_a_score_never_is_what_its_parts_do_not_allow(found: list[tuple[str, object, str, int]]) -> None:
    scores, now, connected = PeerScores(PARAMS), 0.0, dict[object, None]()
    scores.expect_rate("t", 2.0)
    clean = dict.fromkeys(PEERS[:5])  # who broke no rule
    for name, peer, topic, number in found:
        assert isinstance(peer, type(A))
        match name:
            case "connect":
                scores.handle_connected(peer, ip_address(f"1.1.1.{number}"))
                connected[peer] = None
            case "leave":
                scores.handle_disconnected(peer, now)
                connected.pop(peer, None)
            case "say":
                scores.set_application_score(peer, float(number))
            case "wait":
                now += number
                scores.handle_heartbeat(now)
            case "misbehave":
                clean.pop(peer, None)
                scores.handle_misbehaviour(peer, float(number), now)
            case _ if peer not in connected:
                pass
            case "graft":
                scores.handle_grafted(topic, peer, now)
            case "prune":
                scores.handle_pruned(topic, peer)
            case "first":
                scores.handle_first(topic, peer, b"%d" % number, now)
            case "copy":
                scores.handle_copy(topic, peer, b"%d" % number, now)
            case "invalid":
                clean.pop(peer, None)
                scores.handle_invalid(topic, peer)
        assert scores.scores().keys() == connected.keys()
        for one, value in scores.scores().items():
            assert value <= PARAMS.credit_cap + 5.0
            assert scores.is_negative(one) == (value < 0)
            if one in clean:  # whatever it withheld, one topic alone shuts nobody out
                assert value >= PARAMS.graylist_threshold


@pytest.mark.parametrize(
    "settings",
    [
        {"publish_threshold": -5.0},
        {"graylist_threshold": -20.0},
        {"gossip_threshold": 1.0, "publish_threshold": 1.0},
        {"accept_px_threshold": -1.0},
        {"first_decay": 1.0},
        {"penalty_decay": 0.0},
        {"first_weight": -1.0},
        {"invalid_weight": 1.0},
        {"credit_cap": 5.0},
        {"failure_weight": -6.0},
    ],
)
def test_contradicting_figures_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        ScoreParams(**settings)
