from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2p.errors import ConnectionLost, RemoteProtocolError
from p2p.peer_id import PeerId
from p2p.ping import IDLE_TIMEOUT, MAX_INBOUND, PROTOCOL, SIZE, PingService, measure
from tests.byte_streams import cancel_at_each_await
from tests.identify.services import MemoryStream, stream_pair
from tests.support import key_number

ONE, TWO = (PeerId.from_public_key(key_number(number).public) for number in (1, 2))
BLOCK = bytes(range(SIZE))


def streams() -> tuple[MemoryStream, MemoryStream]:
    return stream_pair(ONE, TWO, PROTOCOL)


async def test_a_block_that_comes_byte_by_byte_is_echoed_whole(autojump_clock, nursery):
    here, there = streams()
    nursery.start_soon(PingService().serve, there)
    for value in BLOCK:
        await here.send_all(bytes([value]))
    assert await here.receive_some() == BLOCK


async def test_a_round_trip_is_measured_in_seconds(autojump_clock, nursery):
    async def slow_echo():
        await there.receive_some()
        await trio.sleep(2)
        await there.send_all(BLOCK)

    here, there = streams()
    nursery.start_soon(slow_echo)
    assert await measure(here, BLOCK) == 2


async def test_another_answer_is_the_peers_fault_and_none_is_nobodys(autojump_clock):
    here, there = streams()
    await there.send_all(BLOCK[::-1])
    with pytest.raises(RemoteProtocolError):
        await measure(here, BLOCK)
    await there.send_all(BLOCK[:5])
    await there.send_eof()
    with pytest.raises(ConnectionLost):
        await measure(here, BLOCK)


async def test_streams_over_the_limit_are_reset_and_free_places_are_given_again(autojump_clock, nursery):
    service = PingService()
    pairs = [streams() for _ in range(MAX_INBOUND + 1)]
    for _, there in pairs:
        nursery.start_soon(service.serve, there)
    await wait_all_tasks_blocked()
    served = [here for here, there in pairs if not there.was_reset]
    assert len(served) == MAX_INBOUND
    await served[0].send_eof()
    await wait_all_tasks_blocked()
    here, there = streams()
    nursery.start_soon(service.serve, there)
    await here.send_all(BLOCK)
    assert await here.receive_some() == BLOCK


async def test_a_peer_that_stops_within_a_block_costs_one_idle_time(autojump_clock):
    here, there = streams()
    await here.send_all(BLOCK[:7])
    start = trio.current_time()
    await PingService().serve(there)
    assert trio.current_time() - start == IDLE_TIMEOUT


async def test_a_served_stream_is_cancelled_at_any_await_and_its_place_is_free(autojump_clock):
    service = PingService()

    @asynccontextmanager
    async def world():
        here, there = streams()
        await here.send_all(BLOCK)
        await here.send_all(BLOCK[:3])
        await here.send_all(BLOCK[3:])
        await here.send_eof()
        yield lambda: service.serve(there)
        assert service._streams.open == {}

    assert await cancel_at_each_await(world) >= 4


async def test_a_measurement_is_cancelled_at_any_await(autojump_clock):
    @asynccontextmanager
    async def world():
        here, there = streams()
        await there.send_all(BLOCK)
        yield lambda: measure(here, BLOCK)

    assert await cancel_at_each_await(world) >= 2
