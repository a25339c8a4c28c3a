"""Runs the attempts of a `DialPlan`: the first that succeeds wins, the others are cancelled and closed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Generic, TypeVar

import trio
from multiaddr import Multiaddr

from p2p.dialing.plan import DialPlan
from p2p.errors import P2PError
from p2p.scope import Closable, close_forcefully, open_scope

Won = TypeVar("Won", bound=Closable)


class Race(Generic[Won]):
    """One race: `attempt(address)` makes a resource or raises `P2PError`; `run` once."""

    def __init__(self, plan: DialPlan, attempt: Callable[[Multiaddr], Awaitable[Won]]) -> None:
        self._plan = plan
        self._attempt = attempt
        self._searching = True
        self._changed = trio.Event()
        self._winner: tuple[Multiaddr, Won] | None = None

    def add(self, addresses: Sequence[Multiaddr]) -> None:
        """More addresses, while the race runs."""
        self._plan.add(addresses)
        self._changed.set()

    async def run(self, search: Callable[[], Awaitable[None]]) -> tuple[Multiaddr, Won] | None:
        """(address, what its attempt made) of the winner; None when every address failed.

        `search` runs beside the attempts and may `add` addresses until it returns. The caller sets
        the deadline; whatever was open by then is closed.
        """
        try:
            async with open_scope() as nursery:
                nursery.start_soon(self._search, search)
                await self._pace(nursery)
        except BaseException:
            if self._winner is not None:  # it won, but nobody is left to take it
                await close_forcefully(self._winner[1])
            raise
        return self._winner

    async def _pace(self, nursery: trio.Nursery) -> None:
        """Starts the attempts when they are due; returns when there is a winner or no hope."""
        while self._winner is None and (self._searching or not self._plan.idle):
            self._changed = trio.Event()
            while (address := self._plan.start(trio.current_time())) is not None:
                nursery.start_soon(self._run_attempt, address)
            deadline = self._plan.next_deadline()
            with trio.move_on_at(inf if deadline is None else deadline):
                await self._changed.wait()

    async def _search(self, search: Callable[[], Awaitable[None]]) -> None:
        await search()
        self._searching = False
        self._changed.set()

    async def _run_attempt(self, address: Multiaddr) -> None:
        try:
            won = await self._attempt(address)
        except P2PError:
            self._plan.handle_failure(address)
        else:
            if self._winner is None:
                self._winner = address, won
            else:  # both were there within one step
                await close_forcefully(won)
        self._changed.set()
