"""Raw → secured → muxed, on memory streams: what is agreed on, and what happens when nothing is."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import trio

from p2p.errors import AuthenticationFailed, NegotiationFailed, P2PError
from p2p.peer_id import PeerId
from p2p.pnet import PreSharedKey
from p2p.stream import ByteStream
from p2p.yamux import YamuxConnection
from tests.byte_streams import cancel_at_each_await, open_pipe
from tests.support import key_number, upgrader

DIALER, LISTENER = key_number(1), key_number(2)
DIALER_ID, LISTENER_ID = (PeerId.from_public_key(key.public) for key in (DIALER, LISTENER))
ORDERS = [("noise",), ("tls",), ("noise", "tls"), ("tls", "noise")]
KEY_ONE, KEY_TWO = (PreSharedKey(bytes([number]) * 32) for number in (1, 2))


async def upgrade_both(dial, accept, near, far, expected=LISTENER_ID):
    """(dialer's connection or error, listener's); each side closes its stream when it fails."""
    results = {}

    async def run(side, operation):
        try:
            results[side] = await operation
        except P2PError as exc:
            results[side] = exc

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "dialer", dial.upgrade_outbound(near, expected))
        nursery.start_soon(run, "listener", accept.upgrade_inbound(far))
    return results["dialer"], results["listener"]


class Recorded:
    """A `ByteStream` that notes what it was given to send."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.sent = bytearray()

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def send_nowait(self, data):
        taken = self._stream.send_nowait(data)
        self.sent += bytes(data)[:taken]
        return taken

    async def send_all(self, data):
        self.sent += bytes(data)
        await self._stream.send_all(data)


@pytest.mark.parametrize(("near_order", "far_order"), list(itertools.product(ORDERS, ORDERS)))
async def test_the_dialer_s_first_choice_that_both_speak_is_taken(near_order, far_order):
    async with open_pipe() as (near, far):
        near = Recorded(near)
        dial, accept = upgrader(DIALER, security=near_order), upgrader(LISTENER, security=far_order)
        dialed, accepted = await upgrade_both(dial, accept, near, far)
    chosen = [name for name in near_order if name in far_order][:1]
    if not chosen:
        assert isinstance(dialed, NegotiationFailed)
        assert isinstance(accepted, NegotiationFailed)
        return
    assert (dialed.peer, accepted.peer) == (LISTENER_ID, DIALER_ID)
    proposals = [name for name in ("noise", "tls") if f"/{name}".encode() in near.sent]
    assert set(near_order[: near_order.index(chosen[0]) + 1]) >= set(proposals)


@pytest.mark.parametrize("security", ["noise", "tls"])
async def test_a_peer_with_another_id_is_left_with_a_typed_error(security):
    async with open_pipe() as (near, far):
        dial, accept = (upgrader(key, security=(security,)) for key in (DIALER, LISTENER))
        other = PeerId.from_public_key(key_number(3).public)
        dialed, accepted = await upgrade_both(dial, accept, near, far, expected=other)
    assert isinstance(dialed, AuthenticationFailed)
    assert isinstance(accepted, P2PError)


@pytest.mark.parametrize("security", ["noise", "tls"])
async def test_a_private_network_says_nothing_in_the_clear(security):
    async with open_pipe() as (near, far):
        near = Recorded(near)
        dial, accept = (upgrader(key, KEY_ONE, security=(security,)) for key in (DIALER, LISTENER))
        dialed, accepted = await upgrade_both(dial, accept, near, far)
    assert isinstance(dialed, YamuxConnection)
    assert isinstance(accepted, YamuxConnection)
    assert b"multistream" not in near.sent
    assert security.encode() not in near.sent


@pytest.mark.parametrize("keys", [(KEY_ONE, KEY_TWO), (KEY_ONE, None), (None, KEY_ONE)])
async def test_another_key_or_none_ends_in_one_typed_error(keys):
    async with open_pipe() as (near, far):
        dial, accept = upgrader(DIALER, keys[0]), upgrader(LISTENER, keys[1])
        with trio.move_on_after(1):  # the deadline is the caller's
            results = await upgrade_both(dial, accept, near, far)
            assert all(isinstance(result, P2PError) for result in results)


@pytest.mark.parametrize("security", ["noise", "tls"])
@pytest.mark.parametrize("outbound", [True, False])
async def test_an_upgrade_can_be_cancelled_at_every_await(security, outbound):
    @contextlib.asynccontextmanager
    async def world():
        async with open_pipe() as (near, far), trio.open_nursery() as nursery:
            dial, accept = (upgrader(key, security=(security,)) for key in (DIALER, LISTENER))

            async def other(operation):
                with contextlib.suppress(P2PError):
                    await operation

            if outbound:
                nursery.start_soon(other, accept.upgrade_inbound(far))
                yield lambda: dial.upgrade_outbound(near, LISTENER_ID)
            else:
                nursery.start_soon(other, dial.upgrade_outbound(near, LISTENER_ID))
                yield lambda: accept.upgrade_inbound(far)
            nursery.cancel_scope.cancel()

    assert await cancel_at_each_await(world) > 3
