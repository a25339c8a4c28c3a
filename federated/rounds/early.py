"""What members say about the next round before we are there."""

from __future__ import annotations

from federated.rounds.messages import Body

MAX_EARLY = 64  # messages kept of each member, 4 KiB each; of many members fewer, ...
MIN_EARLY = 8  # ... so that they are not more than twice as many in all as those of 64 members


def most_early(members: int) -> int:
    """How many messages are kept of each of so many `members`."""
    return min(MAX_EARLY, max(MIN_EARLY, MAX_EARLY * MAX_EARLY // members))


class Early:
    """Messages of the next round by the number of their sender, in the order in which they came."""

    def __init__(self) -> None:
        self._kept: dict[int, list[Body]] = {}

    def __bool__(self) -> bool:
        return any(self._kept.values())

    def keep(self, member: int, body: Body, members: int) -> None:
        """Keeps what member number `member` of so many `members` said, unless it said that or enough."""
        kept = self._kept.setdefault(member, [])
        if len(kept) < most_early(members) and body not in kept:
            kept.append(body)

    def retain(self, members: int) -> None:
        """Forgets whoever is not in the set `members`."""
        self._kept = {member: bodies for member, bodies in self._kept.items() if members >> member & 1}

    def take(self, round_number: int) -> list[tuple[int, Body]]:
        """All about a round that begins now, by the numbers of the members; the rest is forgotten."""
        kept, self._kept = self._kept, {}
        everything = [(member, body) for member, bodies in sorted(kept.items()) for body in bodies]
        return [(member, body) for member, body in everything if body.round == round_number]

    def clear(self) -> None:
        """Forgets everything."""
        self._kept = {}
