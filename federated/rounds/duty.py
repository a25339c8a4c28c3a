"""Which voters of a round fetch all updates, check and average them: all but those that are too slow for it.

A voter that takes longer than the deadlines of its phases only costs its own line and machine: others decide
without it. It is relieved of that work in a round, the slowest one first, as long as the voters that are left
are a quorum and half as many more as may fail. What it does in that round is what a member outside of the
committee does: it trains, reveals its update, and adopts what is certified.

Everybody decides for himself, by what he has heard. Where views differ, too many may think that they are
relieved; then the round is not decided, and they take their duty up after all. No vote that a
voter makes or does not make by that is one that the agreement forbids: it is as if it was away for a while.

Of 4 voters one may be relieved, of 64 eleven: so that half of those that may fail can do so without a delay.
When more than that half fail in one round, it waits until the relieved take their duty up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from federated.rounds.committee import numbers_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from federated.rounds.committee import Panel
    from federated.rounds.messages import Capability


def duties(
    panel: Panel,
    capabilities: Mapping[int, Capability],
    live: int,
    *,
    updates: int,
    size: int,
    deadline: float,
) -> int:
    """The set of the voters of `panel` that aggregate; `live` are the members that are there.

    So many `updates` of `size` bytes are to be fetched, and then averaged, each within `deadline` seconds.
    Who has announced nothing, or not the rate in question, is able.
    """
    slow = {
        voter: seconds
        for voter in numbers_in(panel.voters & live)
        if (known := capabilities.get(voter)) is not None
        and (seconds := _seconds(known, updates, size, deadline)) is not None
    }
    committee, left = panel.committee, panel.voters
    spare = (left & live).bit_count() - committee.quorum - committee.faults // 2
    for voter in sorted(slow, key=lambda voter: (-slow[voter], voter))[: max(0, spare)]:
        left &= ~(1 << voter)
    return left


def _seconds(capability: Capability, updates: int, size: int, deadline: float) -> float | None:
    """How long such a voter takes in all, None when it is in time with both; its own update is at hand."""
    fetching = _time((updates - 1) * size, capability.bytes_down)
    averaging = _time(updates * size, capability.aggregate_bytes_per_second)
    return fetching + averaging if max(fetching, averaging) > deadline else None


def _time(size: int, rate: float) -> float:
    return size / rate if rate else 0.0
