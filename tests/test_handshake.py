"""Security handshakes over byte streams: what is sent when, and how they end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from p2p.errors import AuthenticationFailed, ConnectionLost
from p2p.handshake import run_handshake
from p2p.stream import Data
from tests.byte_streams import PipeEnd, Unwritable, cancel_at_each_await, open_pipe


class Turns:
    """A machine of `steps`: "→x" sends x, "←x" expects x, and the last one is what it comes to.

    What it does not expect fails with `AuthenticationFailed` and the alert b"!", if `alerts`.
    """

    def __init__(self, *steps: str, alerts: bool = True) -> None:
        self._steps = list(steps)
        self._alerts = alerts
        self._alert = b""
        self._received = b""

    def receive_data(self, data: Data) -> None:
        self._received += bytes(data)
        while self._steps[0].startswith("←") and self._received:
            expected = self._steps[0][1:].encode()
            if not expected.startswith(self._received[: len(expected)]):
                self._alert = b"!" if self._alerts else b""
                raise AuthenticationFailed("this is not what was agreed on")
            if len(self._received) < len(expected):
                return
            self._received = self._received[len(expected) :]
            del self._steps[0]

    def data_to_send(self) -> bytes:
        data, self._alert = self._alert, b""
        while self._steps[0].startswith("→") and not data:
            data = self._steps.pop(0)[1:].encode()
        return data

    def next_event(self) -> str | None:
        return None if self._steps[0][0] in "→←" else self._steps[0]


@asynccontextmanager
async def open_answering(*answers: bytes) -> AsyncIterator[tuple[PipeEnd, list[bytes]]]:
    """An end whose other side answers each piece with the next of `answers`, and what that got."""
    async with open_pipe() as (near, far), trio.open_nursery() as nursery:
        got: list[bytes] = []

        async def answer() -> None:
            with suppress(ConnectionLost):  # the other end closes when it likes
                for each in answers:
                    got.append(await far.receive_some())
                    await far.send_all(each)
                while data := await far.receive_some():
                    got.append(data)

        nursery.start_soon(answer)
        yield near, got
        await near.aclose()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_both_sides_take_turns_until_the_machine_is_through() -> None:
    async with open_answering(b"two") as (near, got):
        outcome = await run_handshake(near, Turns("→one", "←two", "→three", "agreed"))
    assert (outcome, got) == ("agreed", [b"one", b"three"])


async def test_the_last_message_leaves_before_the_outcome_is_told() -> None:
    async with open_pipe() as (near, far):
        await far.send_all(b"one")
        assert await run_handshake(near, Turns("←one", "→two", "agreed")) == "agreed"
        assert near.writes == [b"two"]


async def test_a_message_may_come_in_pieces() -> None:
    async with open_pipe() as (near, far), trio.open_nursery() as nursery:

        async def send() -> None:
            for letter in b"message":
                await far.send_all(bytes([letter]))
                await trio.testing.wait_all_tasks_blocked()

        nursery.start_soon(send)
        assert await run_handshake(near, Turns("←message", "agreed")) == "agreed"


async def test_an_end_within_the_handshake_is_a_lost_connection() -> None:
    async with open_pipe() as (near, far):
        await far.send_all(b"tw")
        await far.send_eof()
        with pytest.raises(ConnectionLost, match="within the security handshake"):
            await run_handshake(near, Turns("→one", "←two", "agreed"))


async def test_a_failure_is_told_to_the_peer_and_raised() -> None:
    async with open_answering(b"nonsense") as (near, got):
        with pytest.raises(AuthenticationFailed):
            await run_handshake(near, Turns("→one", "←two", "agreed"))
    assert got == [b"one", b"!"]


async def test_a_failure_without_last_words_sends_nothing() -> None:
    async with open_answering(b"nonsense") as (near, got):
        with pytest.raises(AuthenticationFailed):
            await run_handshake(near, Turns("→one", "←two", "agreed", alerts=False))
    assert got == [b"one"]


async def test_a_peer_that_reads_nothing_holds_up_no_failure() -> None:
    async with open_pipe() as (near, far):
        near.allowance = 0
        await far.send_all(b"nonsense")
        with pytest.raises(AuthenticationFailed):
            await run_handshake(near, Turns("←one", "agreed"))
        assert near.writes == []


async def test_a_peer_that_is_gone_when_the_handshake_fails_changes_nothing_about_the_failure() -> None:
    with pytest.raises(AuthenticationFailed):
        await run_handshake(Unwritable(b"nonsense"), Turns("←one", "agreed"))


async def test_a_peer_that_is_gone_when_it_is_our_turn_is_a_lost_connection() -> None:
    with pytest.raises(ConnectionLost, match="the peer is gone"):
        await run_handshake(Unwritable(b""), Turns("→one", "agreed"))


async def test_wherever_it_is_cancelled_the_cancellation_travels_on() -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        async with open_answering(b"two") as (near, _):
            yield lambda: run_handshake(near, Turns("→one", "←two", "→three", "agreed"))

    assert await cancel_at_each_await(world) > 2
