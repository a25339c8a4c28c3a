"""What a hostile peer may try with identify, and the bound that holds."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2p.address import parse_address
from p2p.envelope import seal
from p2p.errors import AuthenticationFailed, MessageTooLarge, RemoteProtocolError, StreamReset
from p2p.framing import encode_delimited
from p2p.identify import PROTOCOL, PUSH_PROTOCOL, PeerInfo
from p2p.identify.identify_pb2 import Identify
from p2p.identify.pushes import PUSH_BURST
from p2p.identify.service import MAX_INBOUND
from p2p.identify.wire import MAX_MESSAGE, MAX_MESSAGES, MAX_PROTOCOLS, encode
from p2p.peer_record import DOMAIN, PAYLOAD_TYPE, sign_record
from p2p.peerstore import MAX_ADDRESSES
from p2p.records.wire import PeerRecordFields, encode_peer_record
from tests.identify.services import Node, connect, identify, open_nodes
from tests.identify.test_service import push

PUBLIC_ONE, PUBLIC_TWO = "/ip4/1.1.1.1/tcp/1", "/ip4/2.2.2.2/tcp/2"
VICTIM_ADDRESS = parse_address("/ip4/3.3.3.3/tcp/3")
LIE = parse_address("/ip4/6.6.6.6/tcp/6")


@pytest.fixture
async def pair(autojump_clock):
    """Us and the attacker, identified, and a third peer that we know."""
    async with open_nodes(PUBLIC_ONE, PUBLIC_TWO, str(VICTIM_ADDRESS)) as nodes:
        us, attacker, victim = nodes
        for other in (attacker, victim):
            connect(us, other, from_="/ip4/1.1.1.1/tcp/999", to=str(other.listen[0]))
            await identify(us, other)
        us.events.clear()
        yield nodes


def nothing_was_taken(us: Node, attacker: Node, victim: Node) -> bool:
    return us.events == [] and all(
        us.peerstore.addresses(peer.id) == peer.listen
        and us.peerstore.protocols(peer.id) == tuple(peer.protocols)
        and us.peerstore.record(peer.id) == peer.service.record()
        for peer in (attacker, victim)
    )


async def test_a_push_with_the_key_of_another_peer_is_refused_whole(autojump_clock, pair):
    us, attacker, victim = pair
    spoofed = PeerInfo(public_key=victim.key.public, listen=(LIE,), protocols=("/lie",))
    stream = await push(attacker, us, *encode(spoofed))
    assert stream.was_reset
    assert isinstance(us.errors[0], AuthenticationFailed)
    assert nothing_was_taken(us, attacker, victim)


async def test_a_push_with_the_record_of_another_peer_is_refused_whole(autojump_clock, pair):
    us, attacker, victim = pair
    newer = sign_record(victim.key, 10**6, [LIE])
    spoofed = PeerInfo(listen=(LIE,), protocols=("/lie",), record=newer.envelope)
    stream = await push(attacker, us, *encode(spoofed))
    assert stream.was_reset
    assert isinstance(us.errors[0], AuthenticationFailed)
    assert nothing_was_taken(us, attacker, victim)


@pytest.mark.parametrize("subject", ["victim", "attacker"])
async def test_a_record_whose_signer_is_not_its_subject_is_refused_whole(autojump_clock, pair, subject):
    us, attacker, victim = pair
    signer = attacker if subject == "victim" else victim
    peer = victim if subject == "victim" else attacker
    payload = encode_peer_record(PeerRecordFields(peer_id=peer.id.raw, seq=10**6, addresses=[LIE.to_bytes()]))
    envelope = seal(DOMAIN, PAYLOAD_TYPE, payload, signer.key)
    stream = await push(attacker, us, *encode(PeerInfo(protocols=("/lie",), record=envelope)))
    assert stream.was_reset
    assert isinstance(us.errors[0], AuthenticationFailed)
    assert nothing_was_taken(us, attacker, victim)


async def test_a_record_that_was_changed_on_the_way_is_refused_whole(autojump_clock, pair):
    us, attacker, victim = pair
    signed = sign_record(attacker.key, 10**6, attacker.listen).envelope
    changed = signed.replace(attacker.listen[0].to_bytes(), LIE.to_bytes())
    await push(attacker, us, *encode(PeerInfo(record=changed)))
    assert isinstance(us.errors[0], AuthenticationFailed)
    assert nothing_was_taken(us, attacker, victim)


async def test_an_old_record_that_is_replayed_changes_nothing(autojump_clock, pair):
    us, attacker, victim = pair
    await push(attacker, us, *encode(PeerInfo(record=sign_record(attacker.key, 1, [LIE]).envelope)))
    us.events.clear()
    assert nothing_was_taken(us, attacker, victim)


async def test_a_liar_that_we_ask_costs_its_answer_and_nothing_else(autojump_clock, pair):
    us, attacker, victim = pair
    attacker.service._key = victim.key
    attacker.service._said = None
    await us.service.identify(us.connections[attacker.id])
    attacker.service._key = attacker.key
    attacker.service._said = None
    assert us.events == []
    assert us.peerstore.addresses(attacker.id) == attacker.listen


async def test_an_oversized_message_is_refused_at_its_length(autojump_clock, pair):
    us, attacker, victim = pair
    stream = attacker.opens_to(us, PUSH_PROTOCOL)
    await stream.send_all(encode_delimited(b"x" * (MAX_MESSAGE + 1))[:3])
    await wait_all_tasks_blocked()
    assert isinstance(us.errors[0], MessageTooLarge)
    assert nothing_was_taken(us, attacker, victim)


async def test_too_many_messages_are_refused(autojump_clock, pair):
    us, attacker, victim = pair
    await push(attacker, us, *[b""] * (MAX_MESSAGES + 1))
    assert isinstance(us.errors[0], RemoteProtocolError)
    assert nothing_was_taken(us, attacker, victim)


def filled(entry: bytes, count: int) -> list[bytes]:
    """As many messages of full size as are taken, of `count` entries at most."""
    a_message = MAX_MESSAGE // len(entry)
    return [entry * min(a_message, count - at) for at in range(0, count, a_message)][:MAX_MESSAGES]


async def test_of_a_hundred_thousand_protocols_few_are_kept(autojump_clock, pair):
    us, attacker, _ = pair
    distinct = (Identify(protocols=[f"/{number}"]).SerializeToString() for number in itertools.count())
    messages = [b"".join(itertools.islice(distinct, 900)) for _ in range(MAX_MESSAGES)]
    await push(attacker, us, *messages)
    assert len(us.peerstore.protocols(attacker.id)) == MAX_PROTOCOLS
    await push(attacker, us, *filled(b"\x1a\x00", 100_000))
    assert us.peerstore.protocols(attacker.id) == ("",)
    assert us.errors == []


async def test_of_a_hundred_thousand_addresses_few_are_kept(autojump_clock, pair):
    us, attacker, _ = pair
    distinct = (
        Identify(listenAddrs=[parse_address(f"/ip4/6.6.6.6/tcp/{port}").to_bytes()]).SerializeToString()
        for port in itertools.count(1)
    )
    messages = [b"".join(itertools.islice(distinct, 800)) for _ in range(MAX_MESSAGES)]
    await push(attacker, us, *messages)
    assert len(us.peerstore.addresses(attacker.id)) == MAX_ADDRESSES
    await push(attacker, us, *filled(b"\x12\x00", 100_000))
    assert len(us.peerstore.addresses(attacker.id)) == MAX_ADDRESSES
    assert us.errors == []


async def test_addresses_that_do_not_decode_cost_only_themselves(autojump_clock, pair):
    us, attacker, _ = pair
    junk = [b"\x04\x01", b"", b"\xff" * 300, b"\x04" * 41, parse_address("/dns4/x/tcp/1").to_bytes()[:-1]]
    message = Identify(listenAddrs=[*junk, LIE.to_bytes()], observedAddr=b"\x04\x01")
    await push(attacker, us, message.SerializeToString())
    assert us.peerstore.addresses(attacker.id) == [LIE]
    assert us.errors == []


async def test_addresses_of_another_peer_or_of_our_own_network_are_not_taken(autojump_clock, pair):
    us, attacker, victim = pair
    lies = (
        parse_address(f"{VICTIM_ADDRESS}/p2p/{victim.id}"),
        parse_address("/ip4/127.0.0.1/tcp/22"),
        parse_address("/ip4/10.0.0.1/tcp/80"),
    )
    await push(attacker, us, *encode(PeerInfo(listen=lies)))
    us.events.clear()
    assert nothing_was_taken(us, attacker, victim)


async def test_a_peer_that_never_ends_its_message_costs_one_deadline(autojump_clock, pair):
    us, attacker, victim = pair
    start = trio.current_time()
    stream = attacker.opens_to(us, PUSH_PROTOCOL)
    await stream.send_all(encode_delimited(b"x" * 1000)[:2])
    with pytest.raises(StreamReset):
        while True:  # a byte a second
            await trio.sleep(1)
            await stream.send_all(b"x")
    assert trio.current_time() - start == pytest.approx(10, abs=1.5)
    assert isinstance(us.errors[0], trio.TooSlowError)
    assert nothing_was_taken(us, attacker, victim)


async def test_a_peer_that_never_answers_costs_one_deadline(autojump_clock, pair, monkeypatch):
    async def silence(stream):
        await trio.sleep_forever()

    us, attacker, victim = pair
    monkeypatch.setattr(attacker.service, "answer", silence)
    start = trio.current_time()
    await us.service.identify(us.connections[attacker.id])
    assert trio.current_time() - start == pytest.approx(10)
    assert nothing_was_taken(us, attacker, victim)


async def test_a_flood_of_pushes_is_cut_to_its_rate(autojump_clock, pair):
    us, attacker, _ = pair
    streams = [await push(attacker, us, b"") for _ in range(20 * PUSH_BURST)]
    assert len(us.events) == PUSH_BURST
    assert all(stream.was_reset for stream in streams[PUSH_BURST:])
    await trio.sleep(5)
    await push(attacker, us, b"")
    assert len(us.events) == PUSH_BURST + 1


@pytest.mark.parametrize("protocol", [PROTOCOL, PUSH_PROTOCOL])
async def test_open_streams_of_a_peer_are_bounded_while_others_are_served(autojump_clock, protocol):
    async with open_nodes("/memory/1", "/memory/2", "/memory/3") as [us, attacker, other]:
        connect(us, attacker, from_="/memory/1", to="/memory/2")
        connect(us, other, from_="/memory/1", to="/memory/3")
        streams = [attacker.opens_to(us, PUSH_PROTOCOL) for _ in range(MAX_INBOUND)]
        await wait_all_tasks_blocked()
        over = attacker.opens_to(us, protocol)
        await wait_all_tasks_blocked()
        assert over.was_reset
        assert not any(stream.was_reset for stream in streams)
        await identify(us, other)
        assert other.peerstore.addresses(us.id) == us.listen


async def test_a_push_behind_the_goodbye_is_dropped(autojump_clock, pair):
    us, attacker, _ = pair
    late, open_before = attacker.opens_to(us, PUSH_PROTOCOL), attacker.opens_to(us, PUSH_PROTOCOL)
    await wait_all_tasks_blocked()
    del us.connections[attacker.id]
    for stream in (late, open_before):
        await stream.send_all(encode_delimited(encode(PeerInfo(protocols=("/late",)))[0]))
        await stream.send_eof()
    assert (await push(attacker, us, b"")).was_reset
    assert us.events == []


async def test_one_address_cannot_make_us_believe_where_we_are(autojump_clock):
    listen = [f"/ip4/1.1.1.{number}/tcp/1" for number in range(1, 9)]
    async with open_nodes(PUBLIC_ONE, *listen) as [us, *attackers]:
        for number, attacker in enumerate(attackers):
            connect(attacker, us, from_=f"/ip4/9.9.9.9/tcp/{number}", to=str(LIE))
            await identify(us, attacker)
        assert us.service.observed_addresses() == []
