"""What is tried on each connection: every case in both directions, whoever dialed.

Source: the list is that of what a node cannot do without; the sizes are beyond yamux's first window of
256 KiB where a window has to move.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.interop.dialect import ECHO, Side

MIB = 1 << 20  # bytes
MORE_THAN_A_WINDOW = 20 * MIB  # all of go, js and py stop at 16 MiB; py-libp2p may grant that much at once
STREAMS = 100
DEADLINE = 30.0  # seconds for one case


async def ping(us: Side, them: Side) -> None:
    await us.ping()
    await them.ping()


async def identify(us: Side, them: Side) -> None:
    seen_by_us, seen_by_them = await us.identify(), await them.identify()
    assert ECHO in seen_by_us.protocols
    assert ECHO in seen_by_them.protocols
    assert "libp2p" in seen_by_us.agent
    assert seen_by_them.agent.startswith("atcp/")


async def echo(us: Side, them: Side) -> None:
    await us.echo(MIB)
    await them.echo(MIB)


async def half_close(us: Side, them: Side) -> None:
    for opener in (us, them):
        await opener.half_close(0)
        await opener.half_close(MIB)


async def reset(us: Side, them: Side) -> None:
    for opener, other in ((us, them), (them, us)):
        await opener.be_reset()
        await opener.reset()
        await other.see_reset()


async def parallel(us: Side, them: Side) -> None:
    await us.parallel(STREAMS, 1024)
    await them.parallel(STREAMS, 1024)


async def slow_reader(us: Side, them: Side) -> None:
    for opener, reader in ((us, them), (them, us)):
        await opener.slow_start(MORE_THAN_A_WINDOW)
        await opener.parallel(STREAMS, 1024)
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
    "reset": reset,
    "100 streams": parallel,
    "a slow reader among them": slow_reader,
}
