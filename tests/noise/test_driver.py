from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2p.encrypted import EncryptedStream
from p2p.errors import AuthenticationFailed, ConnectionLost
from p2p.keys import KeyPair
from p2p.noise import secure_inbound, secure_outbound
from p2p.noise.cipher import Cipher
from p2p.noise.handshake import Handshake
from p2p.peer_id import PeerId
from p2p.stream import ByteStream, SecureStream
from tests.byte_streams import PipeEnd, cancel_at_each_await, open_pipe

ALICE = KeyPair.from_seed(b"a" * 32)
BOB = KeyPair.from_seed(b"b" * 32)
ALICE_ID = PeerId.from_public_key(ALICE.public)
BOB_ID = PeerId.from_public_key(BOB.public)


@asynccontextmanager
async def open_secure_pair() -> AsyncIterator[tuple[EncryptedStream, EncryptedStream, PipeEnd, PipeEnd]]:
    """Both ends of a secured stream, and the raw ends beneath."""
    async with open_pipe() as (near, far):
        ends: dict[str, EncryptedStream] = {}

        async def accept() -> None:
            ends["bob"] = await secure_inbound(far, BOB)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            ends["alice"] = await secure_outbound(near, ALICE, BOB_ID)
        yield ends["alice"], ends["bob"], near, far


async def receive_exactly(stream: EncryptedStream, size: int) -> bytes:
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


async def test_frames_without_content_are_not_the_end(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far), trio.open_nursery() as nursery:

        async def dial() -> None:
            cipher = Cipher(**await handshake_keys(near))
            aead = cipher._sealing
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
                frames.append(bytes(cipher.seal([b"first", b"second"])))
                return frames[0][:-3]

            frames: list[bytes] = []
            await handshake_keys(near, then=frame_and_a_half)
            await near.send_all(frames[0][-3:])

        nursery.start_soon(dial)
        bob = await secure_inbound(far, BOB)
        assert await receive_exactly(bob, 11) == b"firstsecond"


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
