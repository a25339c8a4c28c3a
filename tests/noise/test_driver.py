from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2p.errors import AuthenticationFailed, ConnectionLost, LocalProtocolError
from p2p.keys import KeyPair
from p2p.noise import NoiseStream, secure_inbound, secure_outbound
from p2p.noise.cipher import Cipher
from p2p.noise.driver import SEND_SIZE
from p2p.noise.handshake import Handshake
from p2p.peer_id import PeerId
from p2p.scope import open_scope
from p2p.stream import ByteStream, SecureStream
from tests.byte_streams import PipeEnd, cancel_at_each_await, open_pipe

ALICE = KeyPair.from_seed(b"a" * 32)
BOB = KeyPair.from_seed(b"b" * 32)
ALICE_ID = PeerId.from_public_key(ALICE.public)
BOB_ID = PeerId.from_public_key(BOB.public)


@asynccontextmanager
async def open_secure_pair() -> AsyncIterator[tuple[NoiseStream, NoiseStream, PipeEnd, PipeEnd]]:
    """Both ends of a secured stream, and the raw ends beneath."""
    async with open_pipe() as (near, far):
        ends: dict[str, NoiseStream] = {}

        async def accept() -> None:
            ends["bob"] = await secure_inbound(far, BOB)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            ends["alice"] = await secure_outbound(near, ALICE, BOB_ID)
        yield ends["alice"], ends["bob"], near, far


async def receive_exactly(stream: NoiseStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = await stream.receive_some()
        assert chunk, "ended early"
        data += chunk
    assert len(data) == size
    return bytes(data)


async def test_both_ends_know_each_other(autojump_clock: trio.testing.MockClock) -> None:
    async with open_secure_pair() as (alice, bob, _, _):
        assert (alice.remote_peer, alice.remote_key) == (BOB_ID, BOB.public)
        assert (bob.remote_peer, bob.remote_key) == (ALICE_ID, ALICE.public)
        as_interface: SecureStream = alice
        await as_interface.send_all(b"hello")
        assert await bob.receive_some() == b"hello"


async def test_any_peer_will_do_when_none_is_expected(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(secure_inbound, far, BOB)
        assert (await secure_outbound(near, ALICE, None)).remote_peer == BOB_ID


async def test_a_mebibyte_goes_both_ways_at_once(autojump_clock: trio.testing.MockClock) -> None:
    there, back = bytes(range(256)) * 4096, bytes(range(255, -1, -1)) * 4096
    async with open_secure_pair() as (alice, bob, _, _):
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(alice.send_all, there)
                nursery.start_soon(bob.send_all, memoryview(back))
                assert await receive_exactly(bob, len(there)) == there
                assert await receive_exactly(alice, len(back)) == back


async def test_large_data_goes_out_in_writes_of_sixteen_frames(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_secure_pair() as (alice, bob, near, _):
        near.writes.clear()
        await alice.send_all(bytes(2 * SEND_SIZE + 1))
        assert [len(write) for write in near.writes] == [16 * 65537, 16 * 65537, 2 + 1 + 16]
        assert await receive_exactly(bob, 2 * SEND_SIZE + 1) == bytes(2 * SEND_SIZE + 1)


async def test_a_reader_gets_no_more_than_it_asks_for(autojump_clock: trio.testing.MockClock) -> None:
    async with open_secure_pair() as (alice, bob, _, _):
        await alice.send_all(b"one")
        await alice.send_all(b"two")
        assert await bob.receive_some(2) == b"on"
        assert await bob.receive_some(1) == b"e"
        assert await bob.receive_some(100) == b"two"
        await alice.send_all(b"rest")
        assert await bob.receive_some(1) == b"r"
        assert await bob.receive_some() == b"est"
        with pytest.raises(ValueError, match="max_bytes"):
            await bob.receive_some(0)


async def test_frames_without_content_are_not_the_end(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far), trio.open_nursery() as nursery:

        async def dial() -> None:
            cipher = Cipher(**await handshake_keys(near))
            aead = cipher._seal
            for counter, plain in enumerate((b"", b"", b"x")):
                sealed = aead.encrypt(bytes(4) + counter.to_bytes(8, "little"), plain, None)
                await near.send_all(len(sealed).to_bytes(2, "big") + sealed)
                await trio.testing.wait_all_tasks_blocked()

        nursery.start_soon(dial)
        bob = await secure_inbound(far, BOB)
        assert await bob.receive_some() == b"x"


async def handshake_keys(
    raw: ByteStream, *, then: Callable[[Cipher], bytes] | None = None
) -> dict[str, bytes]:
    """Alice's handshake by hand; what `then` makes travels in one write with message 3."""
    machine = Handshake(
        initiator=True,
        key=ALICE,
        static=X25519PrivateKey.generate(),
        ephemeral=X25519PrivateKey.generate(),
    )
    await raw.send_all(machine.data_to_send())
    while (completed := machine.next_event()) is None:
        machine.receive_data(await raw.receive_some())
    keys = {"send_key": completed.send_key, "receive_key": completed.receive_key}
    await raw.send_all(machine.data_to_send() + (then(Cipher(**keys)) if then else b""))
    return keys


async def test_what_comes_with_message_three_is_not_lost(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far), trio.open_nursery() as nursery:

        async def dial() -> None:
            def frame_and_a_half(cipher: Cipher) -> bytes:
                frames.append(bytes(cipher.encrypt(b"first") + cipher.encrypt(b"second")))
                return frames[0][:-3]

            frames: list[bytes] = []
            await handshake_keys(near, then=frame_and_a_half)
            await near.send_all(frames[0][-3:])

        nursery.start_soon(dial)
        bob = await secure_inbound(far, BOB)
        assert await receive_exactly(bob, 11) == b"firstsecond"


async def test_the_end_between_frames_is_the_end(autojump_clock: trio.testing.MockClock) -> None:
    async with open_secure_pair() as (alice, bob, _, _):
        await alice.send_all(b"bye")
        await alice.aclose()
        assert await bob.receive_some() == b"bye"
        assert await bob.receive_some() == b""
        assert await bob.receive_some(5) == b""
        await alice.aclose()


@pytest.mark.parametrize("cut", [1, 2, 3, 20])
async def test_the_end_within_a_frame_is_a_lost_connection(
    cut: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_secure_pair() as (alice, bob, near, _):
        await near.send_all(alice._cipher.encrypt(b"unfinished")[:cut])
        await near.send_eof()
        with pytest.raises(ConnectionLost, match="within a noise frame"):
            await bob.receive_some()


async def test_a_changed_frame_is_not_taken(autojump_clock: trio.testing.MockClock) -> None:
    async with open_secure_pair() as (alice, bob, near, _):
        frame = alice._cipher.encrypt(b"pay 1")
        frame[3] ^= 1
        await near.send_all(frame)
        with pytest.raises(AuthenticationFailed):
            await bob.receive_some()
        await alice.send_all(b"next")
        with pytest.raises(AuthenticationFailed):
            await bob.receive_some()


async def test_a_wrong_peer_learns_nothing_about_us(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far):
        async with trio.open_nursery() as nursery:

            async def accept() -> None:
                with pytest.raises(ConnectionLost):
                    await secure_inbound(far, BOB)

            nursery.start_soon(accept)
            with pytest.raises(AuthenticationFailed, match="instead of"):
                await secure_outbound(near, ALICE, ALICE_ID)
            await near.aclose()
        assert [len(write) for write in near.writes] == [2 + 32]


async def recorded_handshake() -> tuple[bytes, bytes]:
    """(what the dialing side sends, what the listening side sends) in one handshake."""
    async with open_secure_pair() as (_, _, near, far):
        return b"".join(near.writes), b"".join(far.writes)


async def test_a_handshake_cut_after_any_byte_is_a_typed_error(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dialed, accepted = await recorded_handshake()
    for cut in range(len(accepted)):
        async with open_pipe() as (near, far):
            await far.send_all(accepted[:cut])
            await far.send_eof()
            with pytest.raises(ConnectionLost):
                await secure_outbound(near, ALICE, BOB_ID)
    for cut in range(len(dialed)):
        async with open_pipe() as (near, far):
            await near.send_all(dialed[:cut])
            await near.send_eof()
            with pytest.raises((ConnectionLost, AuthenticationFailed)):
                await secure_inbound(far, BOB)  # another ephemeral key: message 3 would not fit


async def test_a_silent_peer_is_left_at_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far):
        with pytest.raises(trio.TooSlowError), trio.fail_after(15):
            await secure_outbound(near, ALICE, BOB_ID)
        await near.aclose()
        with pytest.raises(ConnectionLost):
            await secure_inbound(far, BOB)


async def test_a_second_sender_is_our_own_error(autojump_clock: trio.testing.MockClock) -> None:
    class Stuck(PipeEnd):
        async def send_all(self, data: object) -> None:
            await trio.sleep_forever()

    async with open_secure_pair() as (alice, _, near, _):
        near.__class__ = Stuck
        async with open_scope() as scope:
            scope.start_soon(alice.send_all, b"x")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(LocalProtocolError, match="another task"):
                await alice.send_all(b"y")
        with pytest.raises(ConnectionLost, match="did not finish"):
            await alice.send_all(b"z")


async def test_sending_on_a_lost_connection_says_so_each_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_secure_pair() as (alice, bob, _, _):
        await bob.aclose()
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                await alice.send_all(b"x")


async def test_sending_nothing_sends_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with open_secure_pair() as (alice, _, near, _):
        near.writes.clear()
        with trio.testing.assert_checkpoints():
            await alice.send_all(b"")
        assert near.writes == []


@pytest.mark.parametrize("dialing", [True, False])
async def test_a_handshake_can_be_cancelled_at_each_await(
    dialing: bool, autojump_clock: trio.testing.MockClock
) -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        outcome: list[object] = []

        async def other_end() -> None:
            try:
                other = secure_inbound(far, BOB) if dialing else secure_outbound(far, BOB, ALICE_ID)
                outcome.append(await other)
            except ConnectionLost as exc:
                outcome.append(exc)

        async with open_pipe() as (near, far):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other_end)
                if dialing:
                    yield lambda: secure_outbound(near, ALICE, BOB_ID)
                else:
                    yield lambda: secure_inbound(near, ALICE)
                await near.aclose()
            assert len(outcome) == 1

    assert await cancel_at_each_await(world) >= 4


async def test_a_cancelled_read_loses_no_byte(autojump_clock: trio.testing.MockClock) -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        async with open_secure_pair() as (alice, bob, _, _):
            received = bytearray()

            async def read_all() -> None:
                while len(received) < 10:
                    received.extend(await bob.receive_some(3))

            await alice.send_all(b"01234")
            await alice.send_all(b"56789")
            yield read_all
            with trio.fail_after(1):
                await read_all()
            assert received == b"0123456789"

    assert await cancel_at_each_await(world) >= 3


async def test_after_a_cancelled_send_nothing_follows(autojump_clock: trio.testing.MockClock) -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        async with open_secure_pair() as (alice, _, _, _):
            finished = False

            async def send() -> None:
                nonlocal finished
                await alice.send_all(bytes(SEND_SIZE + 1))
                finished = True

            yield send
            if finished:
                await alice.send_all(b"more")
            else:
                with pytest.raises(ConnectionLost, match="did not finish"):
                    await alice.send_all(b"more")

    assert await cancel_at_each_await(world) >= 2
