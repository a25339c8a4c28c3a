"""What the handler of a stream raises ends its stream and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
import trio
import trio.lowlevel

from p2p.errors import RemoteProtocolError, StreamReset
from p2p.handlers import run_handler
from p2p.stream import MuxedStream


class Stream:
    """Remembers how it ended; closing it raises `failure`, if there is one."""

    peer, protocol = "the peer", "/p"

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.ends: list[str] = []

    async def aclose(self) -> None:
        self.ends.append("closed")
        if self.failure is not None:
            raise self.failure
        await trio.lowlevel.checkpoint()

    def reset(self, code: int = 0) -> None:
        self.ends.append("reset")


async def finish(stream: MuxedStream) -> None:
    await trio.lowlevel.checkpoint()


async def linger(stream: MuxedStream) -> None:
    await trio.sleep_forever()


async def run(handler: Callable[[MuxedStream], Awaitable[None]], stream: Stream | None = None) -> list[str]:
    stream = stream or Stream()
    await run_handler(cast(MuxedStream, stream), handler)
    return stream.ends


async def test_a_stream_is_closed_when_its_handler_returns(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert await run(finish) == ["closed"]
    assert caplog.records == []


async def test_a_bug_resets_the_stream_and_is_a_warning_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(stream: MuxedStream) -> None:
        raise ZeroDivisionError("a bug")

    assert await run(fail) == ["reset"]
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.WARNING,
        "the handler of a stream of the peer (/p) failed",
    )
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RemoteProtocolError("nonsense"), "nonsense"), (trio.TooSlowError(), "it took too long")],
)
async def test_what_a_peer_does_is_no_warning(
    caplog: pytest.LogCaptureFixture, error: Exception, reason: str
) -> None:
    async def fail(stream: MuxedStream) -> None:
        raise error

    caplog.set_level(logging.INFO)
    assert await run(fail) == ["reset"]
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage() == f"a stream of the peer (/p) ended: {reason}"
    assert record.exc_info is None


async def test_a_failure_of_the_close_is_the_handler_s(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream(StreamReset("the peer reset the stream", 1))
    assert await run(finish, stream) == ["closed", "reset"]
    assert caplog.records == []  # no warning


async def test_a_cancellation_travels_on_and_ends_no_stream_itself() -> None:
    stream = Stream()
    with trio.move_on_after(0) as scope:
        await run(linger, stream)
    assert scope.cancelled_caught
    assert stream.ends == []


async def test_a_bug_while_it_is_cancelled_is_told_and_the_cancellation_travels_on(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError("a bug in the clean-up")

    async def handler(stream: MuxedStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)

    stream = Stream()
    with trio.move_on_after(1) as scope:
        await run(handler, stream)
    assert scope.cancelled_caught
    assert stream.ends == ["reset"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        BaseExceptionGroup("two", [KeyboardInterrupt(), ZeroDivisionError()]),
        BaseExceptionGroup("one", [SystemExit()]),
    ],
)
async def test_what_ends_programs_is_not_held_up(error: BaseException) -> None:
    async def end(stream: MuxedStream) -> None:
        raise error

    stream = Stream()
    with pytest.raises(type(error)) as caught:
        await run(end, stream)
    assert caught.value is error
    assert stream.ends == []
