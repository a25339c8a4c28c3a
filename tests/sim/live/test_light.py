"""The handshake of the rung `light`: an identity is proven for this connection and this role, or refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

import pytest
import trio

from p2p.errors import AuthenticationFailed, ConnectionLost, P2PError
from p2p.peer_id import PeerId
from p2p.scope import open_scope
from p2p.stream import ByteStream
from sim.heap import SimulationError
from sim.identity import key_of
from sim.live.fabric import Endpoint
from sim.live.light import HELLO, KEY, NONCE, PREFIX, SIGNATURE, LightUpgrader
from sim.live.mux import PlainConnection
from tests.byte_streams import open_pipe
from tests.sim.live.support import World, simulated

Attack = Callable[[Endpoint], Awaitable[None]]


def light(world: World, node: int, nonce: bytes | None = None) -> LightUpgrader:
    return LightUpgrader(key_of(1, node), world.heap, lambda size: nonce or bytes([node]) * size)


def peer(node: int) -> PeerId:
    return PeerId.from_public_key(key_of(1, node).public)


async def exactly(raw: Endpoint, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await raw.receive_some(size - len(data))
    return data


@simulated()
async def test_both_learn_who_the_other_is_after_a_round_trip(world: World) -> None:
    near, far = await world.connect()
    made: list[PlainConnection] = []

    async def accept() -> None:
        made.append(await light(world, 1).upgrade_inbound(far))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        made.append(await light(world, 0).upgrade_outbound(near, peer(1)))
        assert trio.current_time() == pytest.approx(0.2)
    assert [each.peer for each in made] == [peer(1), peer(0)]
    assert [each.rtt for each in made] == [None, None]  # nobody measures it here
    assert made[0].remote_key == key_of(1, 1).public
    assert {frame[3] for frame in world.frames} == {HELLO, HELLO + SIGNATURE, SIGNATURE}


@simulated()
async def test_another_peer_than_the_expected_one_is_refused_and_gets_no_signature(world: World) -> None:
    near, far = await world.connect()

    async def accept() -> None:
        with pytest.raises(ConnectionLost):
            await light(world, 1).upgrade_inbound(far)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        with pytest.raises(AuthenticationFailed, match="instead of"):
            await light(world, 0).upgrade_outbound(near, peer(2))
    assert [frame[3] for frame in world.frames] == [HELLO, HELLO + SIGNATURE]
    assert world.fabric.endpoints == [{}, {}, {}]


NODE = key_of(1, 5)  # whose signature the attackers below have, or make
THIEF = key_of(1, 6)
OURS = b"n" * NONCE + NODE.public.encode()


async def respond(raw: Endpoint, make: Callable[[bytes], bytes]) -> None:
    """Answers a hello with `make(hello)`."""
    await raw.send_all(make(await exactly(raw, HELLO)))


RESPONSES: dict[str, Callable[[bytes], bytes]] = {
    "another key": lambda hello: OURS + THIEF.sign(PREFIX + b"responder" + hello + OURS),
    "another role": lambda hello: OURS + NODE.sign(PREFIX + b"initiator" + hello + OURS),
    "no role": lambda hello: OURS + NODE.sign(PREFIX + hello + OURS),
    "another connection": lambda hello: OURS + NODE.sign(PREFIX + b"responder" + bytes(HELLO) + OURS),
    "another answer": lambda hello: OURS + NODE.sign(PREFIX + b"responder" + hello + bytes(HELLO)),
    "our own hello": lambda hello: hello + bytes(SIGNATURE),
    "no signature": lambda hello: OURS + bytes(SIGNATURE),
    "no key": lambda hello: bytes(HELLO + SIGNATURE),
    "garbage": lambda hello: b"\xff" * (HELLO + SIGNATURE),
}


@pytest.mark.parametrize("name", RESPONSES)
@simulated()
async def test_no_other_answer_gets_through(world: World, name: str) -> None:
    near, far = await world.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(respond, far, RESPONSES[name])
        with pytest.raises(AuthenticationFailed):
            await light(world, 0).upgrade_outbound(near, None)
    assert await far.receive_some() == b""  # closed, and no signature of ours came


FINISHES: dict[str, Callable[[bytes], bytes]] = {
    "another key": lambda both: THIEF.sign(PREFIX + b"initiator" + both),
    "another role": lambda both: NODE.sign(PREFIX + b"responder" + both),
    "another connection": lambda both: NODE.sign(PREFIX + b"initiator" + OURS + bytes(HELLO)),
    "no signature": lambda both: bytes(SIGNATURE),
}


@pytest.mark.parametrize("name", FINISHES)
@simulated()
async def test_nobody_else_is_accepted(world: World, name: str) -> None:
    near, far = await world.connect()
    async with trio.open_nursery() as nursery:

        async def dial() -> None:
            await near.send_all(OURS)
            answer = await exactly(near, HELLO + SIGNATURE)
            await near.send_all(FINISHES[name](OURS + answer[:HELLO]))

        nursery.start_soon(dial)
        with pytest.raises(AuthenticationFailed):
            await light(world, 1).upgrade_inbound(far)
    assert await near.receive_some() == b""


@simulated()
async def test_a_recorded_handshake_proves_nothing_the_next_time(world: World) -> None:
    near, far = await world.connect()
    sent: list[bytes] = []

    async def dial() -> None:
        sent.append(OURS)
        await near.send_all(OURS)
        answer = await exactly(near, HELLO + SIGNATURE)
        sent.append(NODE.sign(PREFIX + b"initiator" + OURS + answer[:HELLO]))
        await near.send_all(sent[1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        assert (await light(world, 1, b"1" * NONCE).upgrade_inbound(far)).peer == PeerId.from_public_key(
            NODE.public
        )
    near, far = await world.connect()
    await near.send_all(b"".join(sent))
    with pytest.raises(AuthenticationFailed, match="did not sign"):
        await light(world, 1, b"2" * NONCE).upgrade_inbound(far)


@pytest.mark.parametrize("size", [0, 1, NONCE, HELLO - 1, HELLO, HELLO + SIGNATURE - 1])
@simulated()
async def test_a_handshake_that_is_cut_off_is_a_lost_connection_on_either_side(
    world: World, size: int
) -> None:
    for inbound in (True, False):
        near, far = await world.connect()
        await near.send_all((OURS + bytes(SIGNATURE))[:size])
        await near.aclose()
        with pytest.raises(ConnectionLost, match=r"within the handshake|closed by the other end"):
            if inbound:
                await light(world, 1).upgrade_inbound(far)
            else:
                await light(world, 1).upgrade_outbound(far, None)
        assert world.fabric.endpoints == [{}, {}, {}]


@simulated()
async def test_a_handshake_survives_being_delivered_byte_by_byte(world: World) -> None:
    near, far = await world.connect()
    async with open_scope() as nursery:

        async def dial() -> None:
            for byte in OURS:
                await near.send_all(bytes([byte]))
            answer = await exactly(near, HELLO + SIGNATURE)
            for byte in NODE.sign(PREFIX + b"initiator" + OURS + answer[:HELLO]):
                await near.send_all(bytes([byte]))

        nursery.start_soon(dial)
        made = await light(world, 1).upgrade_inbound(far)
        assert made.remote_key == NODE.public
    assert len(made.remote_key.encode()) == KEY


@simulated()
async def test_a_cancelled_handshake_closes_the_connection(world: World) -> None:
    near, far = await world.connect()
    with trio.move_on_after(1) as scope:
        await light(world, 1).upgrade_inbound(far)
    assert scope.cancelled_caught
    assert await near.receive_some() == b""


@simulated()
async def test_only_simulated_connections_can_be_upgraded(world: World) -> None:
    async with open_pipe() as (near, far), open_scope() as nursery:
        refused = []

        async def upgrade(call: Callable[[], Awaitable[object]]) -> None:
            try:
                await call()
            except (SimulationError, P2PError) as exc:
                refused.append(type(exc))

        one, other = cast(ByteStream, near), cast(ByteStream, far)
        nursery.start_soon(upgrade, lambda: light(world, 0).upgrade_outbound(one, None))
        await upgrade(lambda: light(world, 1).upgrade_inbound(other))
        await trio.sleep(1)
        assert SimulationError in refused
