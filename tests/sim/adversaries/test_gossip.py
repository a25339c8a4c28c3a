"""Routers that break a rule, alone and among honest ones."""

from __future__ import annotations

from random import Random

import pytest

from p2p.gossipsub.events import Action, Deliver, Join, Publish, SendRpc
from p2p.gossipsub.router import Router
from p2p.gossipsub.wire import Prune, Rpc
from p2p.peer_id import PeerId
from sim.adversaries.addresses import shared_addresses
from sim.adversaries.gossip import (
    FORGED,
    GRAFTS,
    REPLAYED,
    SPAM_IDS,
    Censor,
    Covert,
    Degrader,
    Dropper,
    Eclipser,
    Forger,
    GraftFlooder,
    IHaveSpammer,
    Replayer,
    censor_of,
    covert_until,
)
from sim.scenario.model import Adversary, Selection
from tests.gossipsub.support import SEQNO, open_peer, peer_number, receive, sent, signed
from tests.support import key_number

TOPIC = "sim"


def joined(kind: type[Router], peers: int = 3) -> tuple[Router, list[PeerId]]:
    """A router of that kind in the topic, and its peers, numbers from 2."""
    router = kind(key=key_number(1), rng=Random(1), seqno=SEQNO)
    router.handle(Join(topic=TOPIC), 0.0)
    return router, [open_peer(router, number, [TOPIC]) for number in range(2, 2 + peers)]


def messages(actions: list[Action]) -> list[bytes]:
    return [
        message.data for action in actions if isinstance(action, SendRpc) for message in action.rpc.messages
    ]


def delivered(actions: list[Action]) -> list[bytes]:
    return [action.message.data for action in actions if isinstance(action, Deliver)]


def test_a_dropper_delivers_and_passes_on_its_own_messages_only() -> None:
    router, peers = joined(Dropper)
    message = signed(2, TOPIC, b"theirs")
    actions = receive(router, peers[0], Rpc(messages=(message,)))
    assert (delivered(actions), messages(actions)) == ([b"theirs"], [])
    asked = Rpc(iwant=(message.origin + message.seqno,))
    assert receive(router, peers[1], asked, 0.5) == []
    assert not any(isinstance(action, SendRpc) and action.rpc.ihave for action in router.handle_timer(0.2))
    assert messages(router.handle(Publish(topic=TOPIC, data=b"own"), 0.6)) == [b"own"] * 3


@pytest.mark.parametrize("kind", [Censor, censor_of(peer_number(2))])
def test_a_censor_drops_one_origin_and_passes_on_the_others(kind: type[Router]) -> None:
    router, peers = joined(kind)
    assert receive(router, peers[1], Rpc(messages=(signed(2, TOPIC, b"victim"),))) == []
    actions = receive(router, peers[0], Rpc(messages=(signed(3, TOPIC, b"other"),)))
    assert (delivered(actions), messages(actions)) == ([b"other"], [b"other"])
    assert receive(router, peers[2], Rpc(messages=(signed(2, TOPIC, b"victim", SEQNO + 1),))) == []


def test_a_spammer_advertises_new_inventions_with_each_heartbeat_and_no_more() -> None:
    router, peers = joined(IHaveSpammer)
    seen: dict[bytes, None] = {}
    for now in (0.2, 1.2):
        actions = router.handle_timer(now)
        for peer in peers:
            [have] = [have for rpc in sent(actions, peer) for have in rpc.ihave]
            assert have.topic == TOPIC
            assert len(have.ids) == SPAM_IDS
            seen.update(dict.fromkeys(have.ids))
    assert len(seen) == 2 * 3 * SPAM_IDS
    assert router.handle_timer(1.3) == []
    receive(router, peers[0], Rpc(iwant=tuple(seen)), 1.4)


def test_a_flooder_grafts_again_when_it_is_pruned_but_not_for_ever() -> None:
    router, peers = joined(GraftFlooder)
    actions = router.handle_timer(0.2)
    assert all(TOPIC in rpc.graft for peer in peers for rpc in sent(actions, peer))
    prune = Rpc(prune=(Prune(topic=TOPIC, backoff=60),))
    for beat in (0.3, 1.4):
        grafts = sum(
            len(rpc.graft)
            for step in range(3 * GRAFTS)
            for rpc in sent(receive(router, peers[0], prune, beat + step / 1000), peers[0])
        )
        assert grafts == GRAFTS - 1
        router.handle_timer(beat + 0.9)
    assert receive(router, peers[0], Rpc(prune=(Prune(topic="other"),)), 3.0) == []


def test_a_replayer_sends_again_what_it_got_first() -> None:
    router, peers = joined(Replayer)
    for number in range(REPLAYED + 5):
        receive(router, peers[0], Rpc(messages=(signed(2, TOPIC, b"%d" % number, SEQNO + number),)))
    expected = [b"%d" % number for number in range(REPLAYED)]
    for now in (0.2, 200.0):
        actions = router.handle_timer(now)
        for peer in peers:
            assert messages([SendRpc(peer=peer, rpc=rpc) for rpc in sent(actions, peer)]) == expected
    fresh, _ = joined(Replayer)
    assert messages(fresh.handle_timer(0.2)) == []


def test_a_forger_is_refused_by_the_honest_and_costs_them_a_bounded_number_of_messages() -> None:
    forger, _ = joined(Forger)
    honest, others = joined(Router)
    [rpc] = [rpc for rpc in sent(forger.handle_timer(0.2), peer_number(2)) if rpc.messages]
    assert len(rpc.messages) == FORGED == len(dict.fromkeys(message.seqno for message in rpc.messages))
    assert all(message.origin != peer_number(2).raw for message in rpc.messages)
    assert receive(honest, others[0], rpc) == []
    assert honest.counters.rejected == FORGED


def test_a_forger_whom_one_peer_hears_forges_its_own_name() -> None:
    router, [peer] = joined(Forger, peers=1)
    [rpc] = [rpc for rpc in sent(router.handle_timer(0.2), peer) if rpc.messages]
    assert {message.origin for message in rpc.messages} == {router.peer_id.raw}


@pytest.mark.parametrize("kind", [IHaveSpammer, GraftFlooder, Replayer, Forger])
def test_nothing_happens_before_a_heartbeat(kind: type[Router]) -> None:
    router = kind(key=key_number(1), rng=Random(1), seqno=SEQNO)
    assert router.handle_timer(5.0) == []
    router.handle(Join(topic=TOPIC), 5.0)
    assert router.handle_timer(5.05) == []


def test_an_eclipser_is_in_every_mesh_that_takes_it_and_passes_on_nothing() -> None:
    router, peers = joined(Eclipser, 40)
    assert router.mesh(TOPIC) == peers
    assert messages(receive(router, peers[0], Rpc(messages=(signed(2, TOPIC, b"x"),)))) == []
    router.handle_timer(0.2)
    receive(router, peers[0], Rpc(prune=(Prune(topic=TOPIC, backoff=10),)), 0.5)
    again = [now for now in range(1, 20) if peers[0] in _grafted(router.handle_timer(now + 0.3))]
    assert again == [13]  # as soon as it may


def _grafted(actions: list[Action]) -> list[PeerId]:
    return [action.peer for action in actions if isinstance(action, SendRpc) and action.rpc.graft]


def test_a_degrader_passes_on_about_half_the_same_to_all() -> None:
    router, peers = joined(Degrader)
    sizes = [
        len(messages(receive(router, peers[0], Rpc(messages=(signed(2, TOPIC, b"x", SEQNO + number),)))))
        for number in range(100)
    ]
    assert {*sizes} == {0, 2}
    assert 30 < sizes.count(0) < 70


def test_a_covert_one_is_honest_until_it_is_not() -> None:
    router, peers = joined(covert_until(5.0))
    assert isinstance(router, Covert)
    early = signed(2, TOPIC, b"early")
    assert messages(receive(router, peers[0], Rpc(messages=(early,)), 1.0)) == [b"early"] * 2
    outsider = open_peer(router, 9, now=1.0)
    asked = Rpc(iwant=(early.address,))
    assert messages(receive(router, outsider, asked, 1.0)) == [b"early"]
    receive(router, peers[1], Rpc(prune=(Prune(topic=TOPIC),)), 1.0)
    assert any(rpc.ihave for rpc in sent(router.handle_timer(1.1), peers[1]))
    assert messages(receive(router, peers[0], Rpc(messages=(signed(2, TOPIC, b"late", 7),)), 5.0)) == []
    assert receive(router, outsider, asked, 5.0) == []
    assert not any(rpc.ihave for rpc in sent(router.handle_timer(5.1), peers[1]))


def test_addresses_are_dealt_out_to_those_who_share_them() -> None:
    one = Adversary(role="eclipser", who=Selection(nodes=(0,)), addresses=2)
    alone = Adversary(role="eclipser", who=Selection(nodes=(0,)))
    found = shared_addresses({4: one, 2: one, 9: alone, 7: one})
    assert {node: str(address) for node, address in found.items()} == {
        2: "11.0.0.0",
        4: "11.0.0.1",
        7: "11.0.0.0",
    }
    assert all(address.is_global for address in found.values())
