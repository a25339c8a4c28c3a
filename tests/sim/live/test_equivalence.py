"""Whatever is done on a pair of streams, both rungs show the same of it."""

from __future__ import annotations

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.errors import LocalProtocolError, P2PError, StreamReset
from p2p.scope import open_scope
from p2p.stream import MuxedStream
from sim.live.plain_stream import WINDOW
from tests.sim.live.support import World, open_pair

Step = tuple[int, str, int]  # side, what it does, a number for it
SIZES = [0, 1, 100, 1000, WINDOW]
BIG = len(SIZES) - 1

steps = st.tuples(
    st.integers(0, 1),
    st.sampled_from(
        ["send", "send", "send_nowait", "receive", "receive", "each", "eof", "close", "reset", "soon", "wait"]
    ),
    st.integers(0, len(SIZES) - 1),
)


def name_of(error: P2PError) -> str:
    if isinstance(error, StreamReset):
        return f"reset {error.code}"
    return "closed" if isinstance(error, LocalProtocolError) else type(error).__name__


class Player:
    """Does one thing after the other to a stream; what waits longer than a second is cancelled."""

    def __init__(self, stream: MuxedStream) -> None:
        self.stream = stream
        self.received = 0
        self.seen: list[object] = []

    async def play(self, what: str, number: int) -> None:
        with trio.move_on_after(1) as scope:
            try:
                await getattr(self, f"do_{what}")(number)
            except P2PError as exc:
                self.seen.append((what, name_of(exc)))
        if scope.cancelled_caught:
            self.seen.append((what, "waits"))

    async def do_send(self, number: int) -> None:
        await self.stream.send_all(bytes(SIZES[number]))
        self.seen.append("sent")

    async def do_send_nowait(self, number: int) -> None:
        self.seen.append(self.stream.send_nowait(bytes(SIZES[number])))

    async def do_receive(self, number: int) -> None:
        """Reads until nothing more comes for a second."""
        while data := await self.stream.receive_some():
            self.received += len(data)
        self.seen.append("end")

    async def do_each(self, number: int) -> None:
        def take(data: bytes) -> None:
            self.received += len(data)

        await self.stream.receive_each(take)
        self.seen.append("end")

    async def do_eof(self, number: int) -> None:
        await self.stream.send_eof()
        self.seen.append("closed our side")

    async def do_close(self, number: int) -> None:
        await self.stream.aclose()
        self.seen.append("closed")

    async def do_reset(self, number: int) -> None:
        self.stream.reset(number)
        self.seen.append("reset")

    async def do_soon(self, number: int) -> None:
        self.stream.send_soon(bytes(number))
        self.seen.append("soon")

    async def do_wait(self, number: int) -> None:
        await trio.sleep(0.9)


def with_one_big_write(plan: list[Step]) -> list[Step]:
    """`plan` with one write of a window by each side: how much a reader has granted depends on the pieces."""
    written, result = [False, False], list[Step]()
    for side, what, number in plan:
        big = what.startswith("send") and number == BIG
        result.append((side, what, 2 if big and written[side] else number))
        written[side] |= big
    return result


def observe(rung: str, plan: list[Step], *, at_once: bool) -> list[object]:
    """What the players of both sides saw, and how many streams are open in the end."""
    world, seen, plan = World(), list[object](), with_one_big_write(plan)

    async def main() -> None:
        accepted: list[MuxedStream] = []

        async def accept(stream: MuxedStream) -> None:
            accepted.append(stream)
            await trio.sleep_forever()

        async with open_pair(world, rung, on_other=accept) as (one, other):
            stream = await one.open()
            await stream.send_all(b"x")
            await trio.sleep(1)
            players = [Player(stream), Player(accepted[0])]
            if at_once:  # each side for itself
                async with open_scope() as nursery:
                    done = [trio.Event(), trio.Event()]

                    async def play(side: int) -> None:
                        for which, what, number in plan:
                            if which == side:
                                await players[side].play(what, number)
                                await trio.sleep(0.2 + 0.1 * side)
                        done[side].set()

                    nursery.start_soon(play, 0)
                    nursery.start_soon(play, 1)
                    for each in done:
                        await each.wait()
            else:
                for side, what, number in plan:
                    await players[side].play(what, number)
                    await trio.sleep(0.2)
            seen.extend((player.received, player.seen) for player in players)
            await trio.sleep(12)
            seen.append((one.connection.num_streams, other.connection.num_streams))

    world.run(main)
    return seen


@settings(max_examples=40)
@given(st.lists(steps, max_size=12))
def test_one_side_after_the_other(plan: list[Step]) -> None:
    assert observe("light", plan, at_once=False) == observe("full", plan, at_once=False)


@settings(max_examples=40)
@given(st.lists(steps, max_size=14))
def test_both_sides_at_once(plan: list[Step]) -> None:
    assert observe("light", plan, at_once=True) == observe("full", plan, at_once=True)
