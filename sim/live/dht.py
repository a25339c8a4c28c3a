"""What a process is told to do with its DHT: each operation ends in a word to the observer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from p2p.errors import P2PError
from p2p.kad import Kad

if TYPE_CHECKING:
    from p2p.kad.query import Finished
    from sim.rung import Observer


class Dht:
    """The Kademlia of one life, observed."""

    def __init__(self, number: int, kad: Kad, observer: Observer) -> None:
        self._number = number
        self._kad = kad
        self._observer = observer

    async def find(self, operation: int, key: bytes) -> None:
        """Looks up the peers closest to `key`; well, when it found any."""
        await self._run(
            operation,
            "find",
            lambda: self._kad.look_up(key),
            _closest,
        )

    async def put(self, operation: int, key: bytes, value: bytes) -> None:
        """Stores a value; well, when somebody took it."""
        await self._run(
            operation,
            "put",
            lambda: self._kad.place_value(key, value),
            _closest,
        )

    async def get(self, operation: int, key: bytes) -> None:
        """Asks for a value; well, when there is one."""
        await self._run(operation, "get", lambda: self._kad.find_value(key), lambda found: found.value or b"")

    async def _run(
        self,
        operation: int,
        kind: str,
        call: Callable[[], Awaitable[Finished]],
        result_of: Callable[[Finished], bytes],
    ) -> None:
        began, result, hops = trio.current_time(), b"", 0
        try:
            finished = await call()
            result, hops = result_of(finished), finished.hops
        except P2PError:
            pass  # it did not end well
        self._observer.looked_up(
            self._number,
            operation,
            kind=kind,
            ok=bool(result),
            seconds=trio.current_time() - began,
            hops=hops,
            result=result,
        )


def _closest(found: Finished) -> bytes:
    """Their ids, in an order that does not depend on who answered first."""
    return b"".join(sorted(peer.raw for peer in found.closest))
