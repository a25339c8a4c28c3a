from __future__ import annotations

from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2p.address import parse_address
from p2p.errors import ConnectionLost, StreamReset
from p2p.events import PeerIdentified
from p2p.framing import encode_delimited
from p2p.identify import PROTOCOL, PUSH_PROTOCOL, PeerInfo, receive_info
from p2p.identify.observed import ACTIVATION, VOTE_TTL
from p2p.identify.service import COLLECT_INTERVAL
from p2p.identify.wire import encode
from p2p.peer_record import open_record
from p2p.peerstore import TTL_RECENTLY_CONNECTED
from tests.byte_streams import cancel_at_each_await
from tests.identify.services import AGENT, MemoryStream, Node, connect, disconnect, identify, open_nodes

HOME = "/ip4/127.0.0.1/tcp/4001 /ip4/192.168.0.2/tcp/4001"
PUBLIC_ONE, PUBLIC_TWO = "/ip4/1.1.1.1/tcp/1", "/ip4/2.2.2.2/tcp/2"


def addresses(*texts: str):
    return [parse_address(text) for text in texts]


async def push(sender: Node, receiver: Node, *messages: bytes) -> MemoryStream:
    """Sends `messages` as a push and returns when they are handled."""
    stream = sender.opens_to(receiver, PUSH_PROTOCOL)
    with suppress(StreamReset):
        await stream.send_all(b"".join(map(encode_delimited, messages)))
        await stream.send_eof()
    await wait_all_tasks_blocked()
    return stream


async def test_each_side_learns_who_the_other_is(autojump_clock):
    async with open_nodes(PUBLIC_ONE, PUBLIC_TWO) as [one, two]:
        two.protocols.append("/two")
        connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
        await identify(one, two)
        assert one.events == [PeerIdentified(peer=two.id, protocols=tuple(two.protocols), agent=AGENT)]
        assert one.peerstore.addresses(two.id) == two.listen
        assert two.peerstore.addresses(one.id) == one.listen
        assert one.peerstore.agent(two.id) == AGENT
        assert one.peerstore.protocols(two.id) == tuple(two.protocols)


async def test_the_record_of_a_peer_is_kept_to_be_passed_on(autojump_clock):
    async with open_nodes(PUBLIC_ONE, PUBLIC_TWO) as [one, two]:
        connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
        await identify(one, two)
        envelope = one.peerstore.record(two.id)
        assert envelope == two.service.record()
        record = open_record(envelope).record
        assert (record.peer, list(record.addresses), record.seq) == (two.id, two.listen, 1000)


async def test_a_new_record_has_a_larger_number_also_when_the_clock_is_set_back(autojump_clock):
    async with open_nodes(PUBLIC_ONE) as [one]:
        first = open_record(one.service.record()).record
        one.clock = iter([5])
        one.protocols.append("/new")
        assert open_record(one.service.record()).record == first
        one.listen += addresses(PUBLIC_TWO)
        assert open_record(one.service.record()).record.seq == first.seq + 1


async def test_a_host_without_an_address_has_no_record(autojump_clock):
    async with open_nodes("") as [one]:
        assert one.service.record() is None


async def test_signed_addresses_stand_in_place_of_unsigned_ones(autojump_clock):
    async with open_nodes(PUBLIC_ONE, PUBLIC_TWO) as [one, two]:
        connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
        unsigned = tuple(addresses("/ip4/3.3.3.3/tcp/3"))
        await push(two, one, *encode(PeerInfo(listen=unsigned, record=two.service.record())))
        assert one.peerstore.addresses(two.id) == two.listen
        assert one.errors == []


async def test_an_old_record_leaves_the_word_to_the_unsigned_addresses(autojump_clock):
    async with open_nodes(PUBLIC_ONE, PUBLIC_TWO) as [one, two]:
        connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
        old = two.service.record()
        two.listen[:] = addresses("/ip4/2.2.2.2/tcp/22")
        await push(two, one, *encode(PeerInfo(record=two.service.record())))
        assert one.peerstore.addresses(two.id) == two.listen
        now = tuple(addresses("/ip4/2.2.2.2/tcp/222"))
        await push(two, one, *encode(PeerInfo(listen=now, record=old)))
        assert one.peerstore.addresses(two.id) == list(now)


async def test_a_record_that_is_known_already_is_not_verified_again(autojump_clock, monkeypatch):
    async with open_nodes(PUBLIC_ONE, PUBLIC_TWO) as [one, two]:
        connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
        await identify(one, two)
        monkeypatch.setattr("p2p.identify.service.check_record", None)
        await identify(one, two)
        assert one.peerstore.record(two.id) == two.service.record()


async def test_private_addresses_of_a_peer_on_the_internet_are_not_remembered(autojump_clock):
    async with open_nodes(PUBLIC_ONE, f"{HOME} {PUBLIC_TWO}") as [one, two]:
        connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
        await identify(one, two)
        assert one.peerstore.addresses(two.id) == addresses(PUBLIC_TWO)
        assert one.peerstore.record(two.id) == two.service.record()


async def test_an_address_that_worked_is_not_given_up_for_addresses_of_no_use(autojump_clock):
    async with open_nodes(PUBLIC_ONE, HOME) as [one, two]:
        one.peerstore.add_addresses(two.id, addresses(PUBLIC_TWO), 3600)
        connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
        await identify(one, two)
        assert one.peerstore.addresses(two.id) == addresses(PUBLIC_TWO)


async def test_fields_that_a_push_leaves_out_are_unchanged(autojump_clock):
    async with open_nodes(PUBLIC_ONE, PUBLIC_TWO) as [one, two]:
        connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
        await identify(one, two)
        await push(two, one, b"")
        assert one.events[1] == one.events[0]
        assert one.peerstore.addresses(two.id) == two.listen
        await push(two, one, *encode(PeerInfo(protocols=("/only",))))
        assert one.events[2] == PeerIdentified(peer=two.id, protocols=("/only",), agent=AGENT)
        assert one.peerstore.record(two.id) == two.service.record()


async def test_changes_of_one_turn_are_one_push_to_each_peer(autojump_clock):
    async with open_nodes(PUBLIC_ONE, PUBLIC_TWO, "/ip4/3.3.3.3/tcp/3") as [one, *others]:
        for other in others:
            connect(one, other, from_="/ip4/1.1.1.1/tcp/999", to=str(other.listen[0]))
            await identify(one, other)
        one.opened.clear()
        for number in range(20):
            one.protocols.append(f"/new/{number}")
            one.service.handle_changed()
        await wait_all_tasks_blocked()
        assert one.opened == [PUSH_PROTOCOL] * 2
        for other in others:
            assert other.peerstore.protocols(one.id) == tuple(one.protocols)


async def test_a_peer_that_takes_no_pushes_gets_none(autojump_clock):
    async with open_nodes(PUBLIC_ONE, PUBLIC_TWO) as [one, two]:
        two.protocols.remove(PUSH_PROTOCOL)
        connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
        await identify(one, two)
        one.service.handle_changed()
        await wait_all_tasks_blocked()
        assert PUSH_PROTOCOL not in one.opened


async def test_many_changes_reach_a_peer_on_the_internet_at_its_rate_and_the_last_one_arrives(autojump_clock):
    async with open_nodes(PUBLIC_ONE, PUBLIC_TWO) as [one, two]:
        connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
        await identify(one, two)
        for number in range(30):
            one.protocols.append(f"/new/{number}")
            one.service.handle_changed()
            await trio.sleep(0.1)
        assert two.errors == []
        assert one.opened.count(PUSH_PROTOCOL) == 10
        await trio.sleep(5)
        assert two.peerstore.protocols(one.id) == tuple(one.protocols)
        assert one.opened.count(PUSH_PROTOCOL) == 11


async def test_a_push_that_fails_is_the_end_of_it(autojump_clock, monkeypatch):
    async def lost(connection, protocols):
        one.opened.append("lost")
        raise ConnectionLost("gone")

    async with open_nodes(PUBLIC_ONE, PUBLIC_TWO) as [one, two]:
        connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
        await identify(one, two)
        monkeypatch.setattr(one.service, "_open_stream", lost)
        one.service.handle_changed()
        await wait_all_tasks_blocked()
        assert one.opened[-1] == "lost"
        one.service.handle_changed()
        await wait_all_tasks_blocked()
        assert one.opened[-2:] == ["lost", "lost"]
        one.service.handle_changed()
        disconnect(one, two)
        await wait_all_tasks_blocked()
        assert one.opened.count("lost") == 2


async def test_a_peer_that_leaves_before_its_push_gets_none(autojump_clock):
    async with open_nodes(PUBLIC_ONE, PUBLIC_TWO) as [one, two]:
        connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
        await identify(one, two)
        one.service.handle_changed()
        del one.connections[two.id]
        await wait_all_tasks_blocked()
        assert PUSH_PROTOCOL not in one.opened


async def test_an_address_that_four_dialers_see_is_announced_and_pushed(autojump_clock):
    seen_as = "/ip4/7.7.7.7/tcp/4001"
    listen = [f"/ip4/1.1.1.{number}/tcp/1" for number in range(1, ACTIVATION + 1)]
    async with open_nodes(HOME, *listen) as [us, *others]:
        for other in others:
            assert us.service.observed_addresses() == []
            connect(other, us, from_=str(other.listen[0]), to=seen_as)
            await identify(us, other)
        await wait_all_tasks_blocked()
        assert us.service.observed_addresses() == addresses(seen_as)
        assert us.service.addresses() == [*us.listen, *addresses(seen_as)]
        assert list(open_record(us.service.record()).record.addresses) == us.service.addresses()
        for other in others:
            assert other.peerstore.addresses(us.id) == addresses(seen_as)
            disconnect(other, us)
        await trio.sleep(VOTE_TTL - 1)
        assert us.service.observed_addresses() == addresses(seen_as)
        await trio.sleep(2)
        assert us.service.addresses() == us.listen


async def test_expired_peers_leave_the_peerstore_without_anybody_asking(autojump_clock):
    """CVE-2023-40583: records of peers that never came back were kept for good."""
    async with open_nodes(PUBLIC_ONE, PUBLIC_TWO) as [one, two]:
        connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
        await identify(one, two)
        await trio.sleep(10 * TTL_RECENTLY_CONNECTED)
        assert one.peerstore.addresses(two.id) == two.listen
        disconnect(one, two)
        await trio.sleep(TTL_RECENTLY_CONNECTED + 2 * COLLECT_INTERVAL)
        assert one.peerstore._entries == {}


@pytest.mark.parametrize("part", ["identify", "answer", "receive_push", "push"])
async def test_cancelled_at_any_await_a_stream_is_reset_and_nothing_is_half_done(autojump_clock, part):
    streams: list[MemoryStream] = []

    @asynccontextmanager
    async def world():
        async with open_nodes(PUBLIC_ONE, PUBLIC_TWO) as [one, two]:
            connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
            message = encode(PeerInfo(protocols=("/a",), listen=tuple(two.listen)))

            async def operation():
                match part:
                    case "identify":
                        await one.service.identify(one.connections[two.id])
                    case "push":
                        await one.service._push(two.id)
                    case "answer":
                        stream = handled(one, two, PROTOCOL)
                        await one.service.answer(stream)
                    case "receive_push":
                        stream = handled(one, two, PUSH_PROTOCOL)
                        await stream._other.send_all(encode_delimited(message[0]))
                        await stream._other.send_eof()
                        await one.service.receive_push(stream)

            yield operation
            assert one.service._inbound.open == {}
            assert one.service._planner._in_flight == {}
            assert one.peerstore.protocols(two.id) in ((), ("/a",), tuple(two.protocols))
            await identify(one, two)
            assert one.peerstore.addresses(two.id) == two.listen

    def handled(node: Node, peer: Node, protocol: str) -> MemoryStream:
        here, there = MemoryStream(peer.id, protocol), MemoryStream(node.id, protocol)
        here._other, there._other = there, here
        streams.append(here)
        return here

    assert await cancel_at_each_await(world) >= 2


async def test_the_service_is_cancelled_at_any_await(autojump_clock):
    @asynccontextmanager
    async def world():
        async with open_nodes(PUBLIC_ONE, PUBLIC_TWO) as [one, two]:
            connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
            await identify(one, two)

            async def operation():
                one.service.handle_changed()
                with trio.move_on_after(COLLECT_INTERVAL / 4):
                    await one.service.run()

            yield operation

    assert await cancel_at_each_await(world) >= 3


async def test_an_answer_is_merged_from_its_parts(autojump_clock):
    async with open_nodes(PUBLIC_ONE, PUBLIC_TWO) as [one, two]:
        one.protocols += [f"/a/rather/long/name/of/a/protocol/{number}" for number in range(60)]
        connect(one, two, from_="/ip4/1.1.1.1/tcp/999", to=PUBLIC_TWO)
        stream = two.opens_to(one, PROTOCOL)
        info = await receive_info(stream)
        assert info.protocols == tuple(one.protocols)
        assert info.record == one.service.record()
        assert info.observed == parse_address(PUBLIC_TWO)
