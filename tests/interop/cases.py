"""What is tried on each connection: every case with both ends as the opener, whoever dialed.

The first line of each docstring is what the documentation says of the case.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.interop.dialect import ECHO, Side

MIB = 1 << 20  # bytes
MORE_THAN_THEIR_WINDOW = 20 * MIB  # go, js and py stop at 16 MiB; py-libp2p grants that for the first bytes
MORE_THAN_OUR_WINDOW = MIB  # a stream of which nothing is read keeps its first 256 KiB
STREAMS = 100
SMALL = 1024  # bytes on each of many streams
DEADLINE = 30.0  # seconds for one case


async def ping(us: Side, them: Side) -> None:
    """32 bytes and their echo."""
    await us.ping()
    await them.ping()


async def identify(us: Side, them: Side) -> None:
    """Each end learns the other's agent, protocols and its own observed address."""
    seen_by_us, seen_by_them = await us.identify(), await them.identify()
    assert ECHO in seen_by_us.protocols
    assert ECHO in seen_by_them.protocols
    assert "libp2p" in seen_by_us.agent
    assert seen_by_them.agent.startswith("atcp/")


async def echo(us: Side, them: Side) -> None:
    """1 MiB of random bytes comes back on one stream: the windows have to move in both directions."""
    await us.echo(MIB)
    await them.echo(MIB)


async def half_close(us: Side, them: Side) -> None:
    """One end closes for writing, and only then the other answers: SHA-256 of nothing, then of 1 MiB."""
    for opener in (us, them):
        await opener.half_close(0)
        await opener.half_close(MIB)


async def bulk(us: Side, them: Side) -> None:
    """20 MiB are given away in one go, and the windows grow: a frame may be as long as a window."""
    await us.half_close(20 * MIB)
    await them.half_close(20 * MIB)


async def reset(us: Side, them: Side) -> None:
    """The opener resets a stream, then the other end one; each time the other sees a reset and no end."""
    for opener, other in ((us, them), (them, us)):
        await opener.be_reset()
        await opener.reset()
        await other.see_reset()


async def parallel(us: Side, them: Side) -> None:
    """100 streams are open before the first byte is sent, then each echoes 1 KiB."""
    await us.parallel(STREAMS, SMALL)
    await them.parallel(STREAMS, SMALL)


async def slow_reader(us: Side, them: Side) -> None:
    """A stream is full, for its reader takes nothing; 100 others echo beside it; then it goes on."""
    for opener, reader, size in ((us, them, MORE_THAN_THEIR_WINDOW), (them, us, MORE_THAN_OUR_WINDOW)):
        await opener.slow_start(size)
        await opener.parallel(STREAMS, SMALL)
        await opener.echo(MIB)
        await reader.echo(MIB)
        assert not await opener.slow_sent()  # its window is used up, and nobody else waited for it
        await reader.release()
        await opener.slow_finish()


Case = Callable[[Side, Side], Awaitable[None]]

CASES: dict[str, Case] = {
    "ping": ping,
    "identify": identify,
    "echo of 1 MiB": echo,
    "half-close": half_close,
    "20 MiB at once": bulk,
    "reset": reset,
    "100 streams": parallel,
    "slow reader": slow_reader,
}
