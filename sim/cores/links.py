"""Connections as this rung has them: two ends that hand over values, and break as real ones do.

    dial ──one latency──→ the other side is connected ──one latency──→ the dialing side is
    reset, crash ──one latency──→ the other side is told      silence ──keepalive──→ both find out

Nothing is encoded or encrypted. What is on its way when a connection is reset is lost, and what a
partition holds for longer than the keepalive too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2p.gossipsub.events import RpcReceived
    from sim.cores.node import Life
    from sim.cores.world import World

DIAL_SIZE = 400  # bytes each way until a connection is up: TCP, security, multiplexer, identify
RESET_SIZE = 40  # bytes; a bare TCP segment
DIAL_TIMEOUT = 15.0  # seconds; p2p.config, "dial_timeout"
KEEPALIVE = 30.0  # seconds between two yamux pings
KEEPALIVE_ANSWER = 10.0  # seconds in which a ping is answered, or the connection is gone


class End:
    """One end of a connection. `up`: its owner knows of it; `receiving`: what arrives here gets in."""

    __slots__ = ("deliver", "life", "other", "outbound", "receiving", "remote", "up")

    remote: End
    deliver: Callable[[End, RpcReceived], None]  # takes an RPC at the other end

    def __init__(self, life: Life, other: int, *, outbound: bool) -> None:
        self.life = life
        self.other = other
        self.outbound = outbound
        self.up = False
        self.receiving = True

    def join(self, remote: End) -> None:
        """The two become a connection."""
        self.remote, remote.remote = remote, self
        self.deliver, remote.deliver = remote.life.gossip.door, self.life.gossip.door

    def receive(self, call: Callable[..., None], *arguments: object) -> None:
        """Anything but a gossipsub RPC arrived: `call(*arguments)` takes it once the node reads."""
        if self.receiving:
            life = self.life
            if life.world.network.reading(life.number):
                life.receive(call, *arguments)
            else:
                life.world.network.when_reading(life.number, self.receive, call, *arguments)

    def send(self, size: int, call: Callable[..., None], *arguments: object) -> None:
        """`size` bytes go to the other end, where `call(*arguments)` takes them."""
        network = self.life.world.network
        if self.life.running:
            network.send(self.life.number, self.other, size, self.remote.receive, call, *arguments)

    def told_lost(self) -> None:
        """The other side is gone and its system says so."""
        self.receiving = False
        self.life.lose(self)


class Dial:
    """An attempt of `life` to reach `other`; `done` are told whether there is a connection."""

    __slots__ = ("done", "end", "life", "open", "other")

    def __init__(self, life: Life, other: int) -> None:
        self.life = life
        self.other = other
        self.done: list[Callable[[bool], None]] = []
        self.open = True
        self.end: End | None = None  # ours, from the moment in which the other side has its own


class Links:
    """Makes and breaks connections."""

    def __init__(self, world: World) -> None:
        self._world = world

    def dial(self, life: Life, other: int, done: Callable[[bool], None] | None = None) -> None:
        """Dials `other` unless there is a connection; `done` is told how it ended."""
        end = life.ends.get(other)
        if end is not None and end.up:
            if done is not None:
                done(True)
            return
        dial = life.dials.get(other)
        if dial is None:
            dial = life.dials[other] = Dial(life, other)
            heap, network = self._world.heap, self._world.network
            heap.plan(heap.now + DIAL_TIMEOUT, self._expire, dial)
            if network.reachable(life.number, other):  # else it says nothing until the time is over
                network.send(life.number, other, DIAL_SIZE, self._accept, dial)
        if done is not None:
            dial.done.append(done)

    def _accept(self, dial: Dial) -> None:
        """The dial arrived at the other side."""
        node = self._world.nodes[dial.other]
        network, number = self._world.network, dial.life.number
        if not dial.open or not dial.life.running:
            return
        life = node.life
        if life is None:
            if not node.powerless:  # its system refuses; a machine without power says nothing
                network.send(dial.other, number, RESET_SIZE, self.finish, dial, False)
            return
        existing = life.ends.get(number)
        if existing is not None:
            if existing.remote.life is dial.life and existing.receiving and existing.remote.receiving:
                return  # two dials crossed, and the first one made the connection
            existing.told_lost()
        ours, theirs = End(life, number, outbound=False), End(dial.life, dial.other, outbound=True)
        ours.join(theirs)
        dial.life.ends[dial.other], dial.end = theirs, theirs
        life.ends[number] = ours
        network.send(dial.other, number, DIAL_SIZE, self._establish, dial, theirs)
        life.open(ours)
        heap = self._world.heap
        heap.plan(heap.now + KEEPALIVE, self._ping, ours)
        crossing = life.dials.get(number)
        if crossing is not None:  # our own dial has what it wanted
            self.finish(crossing, True)

    def _establish(self, dial: Dial, end: End) -> None:
        """The answer arrived at the side that dialed."""
        if end.receiving and end.life.running:
            end.life.open(end)
            self.finish(dial, True)

    def _expire(self, dial: Dial) -> None:
        if dial.open and dial.life.running:
            if dial.end is not None and not dial.end.up:
                self.reset(dial.end)
            self.finish(dial, False)

    def finish(self, dial: Dial, connected: bool) -> None:
        """The dial is over."""
        if dial.open and dial.life.running:
            dial.open = False
            dial.life.dials.pop(dial.other, None)
            dial.life.dialed(dial.other, connected)
            for done in dial.done:
                done(connected)

    # The end of connections

    def reset(self, end: End) -> None:
        """Breaks a connection from this end: what is on its way is lost."""
        end.receiving = end.remote.receiving = False
        end.life.lose(end)
        self._tell(end)

    def abandon(self, life: Life, *, silently: bool) -> None:
        """The process of `life` is gone: the others are told by its system, if that is still there."""
        for end in life.ends.values():
            end.receiving = False
            if not silently:
                self._tell(end)

    def _tell(self, end: End) -> None:
        network = self._world.network
        network.send(end.life.number, end.other, RESET_SIZE, end.remote.told_lost)

    def _ping(self, end: End) -> None:
        """Every half minute each connection is tried; one that does not answer in time is gone."""
        heap = self._world.heap
        if self._is_over(end):
            return
        if self._answers(end):
            heap.plan(heap.now + KEEPALIVE, self._ping, end)
        else:
            heap.plan(heap.now + KEEPALIVE_ANSWER, self._judge, end)

    def _judge(self, end: End) -> None:
        heap = self._world.heap
        if self._is_over(end):
            return
        if self._answers(end):
            heap.plan(heap.now + KEEPALIVE - KEEPALIVE_ANSWER, self._ping, end)
            return
        end.told_lost()
        end.remote.told_lost()

    def _is_over(self, end: End) -> bool:
        """Whether neither side takes it for a connection any more."""
        return not any(one.life.running and one.life.ends.get(one.other) is one for one in (end, end.remote))

    def _answers(self, end: End) -> bool:
        one, other, network = end.life.number, end.other, self._world.network
        alive = end.receiving and end.remote.receiving
        return alive and not network.held(one, other) and not network.held(other, one)
