from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from OpenSSL import SSL

from p2p.encrypted import EncryptedStream
from p2p.errors import AuthenticationFailed, ConnectionLost, NegotiationFailed, P2PError
from p2p.stream import SecureStream
from p2p.tls import TlsIdentity, secure_inbound, secure_outbound
from p2p.tls.channel import Channel
from tests.byte_streams import PipeEnd, cancel_at_each_await, open_pipe
from tests.tls.support import ALICE, ALICE_ID, BOB, BOB_ID, YAMUX, Stranger, certificate, stranger_context

ALICES, BOBS = TlsIdentity(ALICE), TlsIdentity(BOB)


@asynccontextmanager
async def open_secure_pair() -> AsyncIterator[tuple[EncryptedStream, EncryptedStream, PipeEnd, PipeEnd]]:
    """Both ends of a secured stream, and the raw ends beneath."""
    async with open_pipe() as (near, far):
        ends: dict[str, EncryptedStream] = {}

        async def accept() -> None:
            ends["bob"] = await secure_inbound(far, BOBS, muxers=[YAMUX])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            ends["alice"] = await secure_outbound(near, ALICES, BOB_ID, muxers=[YAMUX])
        yield ends["alice"], ends["bob"], near, far


async def receive_exactly(stream: EncryptedStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = await stream.receive_some()
        assert chunk, "ended early"
        data += chunk
    assert len(data) == size
    return bytes(data)


async def test_both_ends_know_each_other_and_their_muxer(autojump_clock: trio.testing.MockClock) -> None:
    async with open_secure_pair() as (alice, bob, _, _):
        assert (alice.remote_peer, alice.remote_key, alice.early_muxer) == (BOB_ID, BOB.public, YAMUX)
        assert (bob.remote_peer, bob.remote_key, bob.early_muxer) == (ALICE_ID, ALICE.public, YAMUX)
        as_interface: SecureStream = alice
        await as_interface.send_all(b"hello")
        assert await bob.receive_some() == b"hello"


async def test_any_peer_will_do_when_none_is_expected(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(secure_inbound, far, BOBS)
        stream = await secure_outbound(near, ALICES, None)
        assert (stream.remote_peer, stream.early_muxer) == (BOB_ID, None)


async def test_a_mebibyte_goes_both_ways_at_once(autojump_clock: trio.testing.MockClock) -> None:
    there, back = bytes(range(256)) * 4096, bytes(range(255, -1, -1)) * 4096
    async with open_secure_pair() as (alice, bob, _, _):
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(alice.send_all, there)
                nursery.start_soon(bob.send_all, memoryview(back))
                assert await receive_exactly(bob, len(there)) == there
                assert await receive_exactly(alice, len(back)) == back


async def test_close_notify_is_the_end(autojump_clock: trio.testing.MockClock) -> None:
    async with open_secure_pair() as (alice, bob, near, _):
        await alice.send_all(b"bye")
        assert isinstance(alice._channel, Channel)
        connection = alice._channel._connection
        connection.shutdown()
        await near.send_all(connection.bio_read(100))
        assert await bob.receive_some() == b"bye"
        assert await bob.receive_some() == b""
        assert await bob.receive_some() == b""


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 30])
async def test_the_end_within_a_record_is_a_lost_connection(
    cut: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_secure_pair() as (alice, bob, near, _):
        await near.send_all(bytes(alice._channel.seal([b"unfinished"]))[:cut])
        await near.send_eof()
        with pytest.raises(ConnectionLost, match="within"):
            await bob.receive_some()


async def test_a_wrong_peer_learns_nothing_about_us(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far):
        async with trio.open_nursery() as nursery:

            async def accept() -> None:
                with pytest.raises(AuthenticationFailed, match="the peer refused the TLS handshake"):
                    await secure_inbound(far, BOBS)

            nursery.start_soon(accept)
            with pytest.raises(AuthenticationFailed, match="instead of"):
                await secure_outbound(near, ALICES, ALICE_ID)
        assert [len(write) < 40 for write in near.writes] == [False, True]  # ClientHello, alert


async def test_leaving_a_peer_that_takes_no_alert_does_not_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Full(PipeEnd):
        def send_nowait(self, data: object) -> int:
            raise ConnectionLost("gone")

    async with open_pipe() as (near, far):
        near.__class__ = Full
        async with trio.open_nursery() as nursery:

            async def accept() -> None:
                with pytest.raises(ConnectionLost):
                    await secure_inbound(far, BOBS)

            nursery.start_soon(accept)
            with pytest.raises(AuthenticationFailed, match="instead of"):
                await secure_outbound(near, ALICES, ALICE_ID)
            await near.aclose()


async def test_a_client_without_a_certificate_hears_why(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far):
        async with trio.open_nursery() as nursery:

            async def accept() -> None:
                with pytest.raises(AuthenticationFailed, match="did not return a certificate"):
                    await secure_inbound(far, BOBS)

            nursery.start_soon(accept)
            stranger = Stranger(stranger_context(), client=True)
            await near.send_all(stranger.step())
            await near.send_all(stranger.step(await near.receive_some()))
        stranger.connection.bio_write(await near.receive_some())
        with pytest.raises(Exception, match="certificate required"):
            stranger.connection.recv(1)


async def test_a_refusal_arrives_with_the_first_read(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far):
        async with trio.open_nursery() as nursery:

            async def accept() -> None:
                context = stranger_context(certificate(BOB))
                context.set_verify(SSL.VERIFY_PEER, lambda *_: False)
                stranger, data = Stranger(context, client=False), b""
                with pytest.raises(Exception, match="verify failed"):
                    while True:
                        if data := stranger.step(data):
                            await far.send_all(data)
                        data = await far.receive_some()
                await far.send_all(stranger.connection.bio_read(100))

            nursery.start_soon(accept)
            alice = await secure_outbound(near, ALICES, BOB_ID)
        with pytest.raises(AuthenticationFailed, match="the peer refused us at the end"):
            await alice.receive_some()


async def test_nothing_in_common_is_said(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far), trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(NegotiationFailed, match="offers only h2"):
                await secure_inbound(far, BOBS)

        nursery.start_soon(accept)
        await near.send_all(Stranger(stranger_context(), client=True, alpn=(b"h2",)).step())


async def recorded_handshake() -> tuple[bytes, bytes]:
    """(what the dialing side sends, what the listening side sends) in one handshake."""
    async with open_secure_pair() as (_, _, near, far):
        return b"".join(near.writes), b"".join(far.writes)


async def test_a_handshake_cut_after_any_byte_is_a_typed_error(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Replayed bytes do not fit the fresh keys of the other side, so some cuts fail before the end."""
    dialed, accepted = await recorded_handshake()
    for cut in range(len(accepted)):
        async with open_pipe() as (near, far):
            await far.send_all(accepted[:cut])
            await far.send_eof()
            with pytest.raises(P2PError):
                await secure_outbound(near, ALICES, BOB_ID)
    for cut in range(len(dialed)):
        async with open_pipe() as (near, far):
            await near.send_all(dialed[:cut])
            await near.send_eof()
            with pytest.raises(P2PError):
                await secure_inbound(far, BOBS)


class Cut(PipeEnd):
    """Lets `left` bytes out, then the connection is gone."""

    left: int

    async def send_all(self, data: bytes) -> None:  # type: ignore[override]
        sent, self.left = data[: self.left], self.left - len(data)
        await super().send_all(sent)
        if self.left < 0:
            await super().aclose()
            raise ConnectionLost("cut")


@pytest.mark.parametrize("dialer", [True, False])
async def test_a_connection_lost_at_any_byte_of_a_live_handshake_is_a_typed_error(
    dialer: bool, autojump_clock: trio.testing.MockClock
) -> None:
    size = len((await recorded_handshake())[0 if dialer else 1])
    for left in range(0, size - 200, 7):  # the server's last 160 bytes are tickets: nobody waits for them
        async with open_pipe() as (near, far):
            cut = near if dialer else far
            cut.__class__ = Cut
            cut.left = left  # type: ignore[attr-defined]
            outcomes: list[object] = []

            async def attempt(operation: Callable[[], Awaitable[object]], outcomes: list[object]) -> None:
                try:
                    outcomes.append(await operation())
                except P2PError as exc:
                    outcomes.append(exc)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(attempt, lambda: secure_outbound(near, ALICES, BOB_ID), outcomes)
                nursery.start_soon(attempt, lambda: secure_inbound(far, BOBS), outcomes)
            assert any(isinstance(outcome, ConnectionLost) for outcome in outcomes)


async def test_a_silent_peer_is_left_at_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pipe() as (near, far):
        with pytest.raises(trio.TooSlowError), trio.fail_after(15):
            await secure_outbound(near, ALICES, BOB_ID)
        await near.aclose()
        with pytest.raises(ConnectionLost):
            await secure_inbound(far, BOBS)


@pytest.mark.parametrize("dialer", [True, False])
async def test_a_handshake_cancelled_at_any_await_ends_the_other_side_too(
    dialer: bool, autojump_clock: trio.testing.MockClock
) -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        async with open_pipe() as (near, far), trio.open_nursery() as nursery:
            ended = trio.Event()

            async def other() -> None:
                try:
                    if dialer:
                        await secure_inbound(far, BOBS)
                    else:
                        await secure_outbound(near, ALICES, BOB_ID)
                except ConnectionLost:
                    pass
                finally:
                    ended.set()

            async def operation() -> None:
                try:
                    if dialer:
                        await secure_outbound(near, ALICES, BOB_ID)
                    else:
                        await secure_inbound(far, BOBS)
                except BaseException:
                    with trio.CancelScope(shield=True):
                        await (near if dialer else far).aclose()  # as the caller of the driver does
                    raise

            nursery.start_soon(other)
            yield operation
            with trio.fail_after(1):
                await ended.wait()

    assert await cancel_at_each_await(world) >= 3
