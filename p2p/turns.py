"""Fair turns for tasks whose operations often finish without waiting."""

from __future__ import annotations

import trio

TURN = 16  # operations; of at most some 256 KiB each, which together take about a millisecond


class Turns:
    """Makes every operation a cancellation point, and every `TURN`th let other tasks run.

    A full checkpoint costs as much as reading a small message; most operations wait anyway.
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = TURN

    async def take(self) -> None:
        """Returns at once, mostly. Raises `trio.Cancelled`."""
        self._left -= 1
        if self._left:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._left = TURN
            await trio.lowlevel.checkpoint()
