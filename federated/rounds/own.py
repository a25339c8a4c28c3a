"""Our own update in one round: from the training to the reveal, and over into the next round.

training ──Trained in time──→ reveal: journaled, committed, and revealed in its turn

Where late updates count (`max_staleness` in the policy), a training that its round goes on without is not
stopped: what it comes to is our update in the next round, which begins without a training of its own. So is
one that the block of its round leaves out though nobody refused it, as when our commit came too late.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from federated.rounds.actions import Action, StopTraining, Train
from federated.rounds.events import Trained, TrainFailed
from federated.rounds.messages import HASH_SIZE, MAX_EXAMPLES, Body, Commit, Model, Reveal, commitment
from federated.rounds.past import Base
from federated.rounds.roster import Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """A training that was begun in `round` and goes on, or has come to `update` too late for its round."""

    round: int
    update: Trained | None = None


class OwnUpdate:
    """What we train, and then reveal, in the round `number`.

    `bases` are the models that updates may build on, by their staleness; `entries` is the journal of the
    round. `reveal` is our update, once there is one in time.
    """

    def __init__(self, *, seat: Seat, number: int, bases: Sequence[Base], entries: Iterable[Body]) -> None:
        self.reveal = next((entry for entry in entries if isinstance(entry, Reveal)), None)
        self.is_training = False
        self._seat = seat
        self._number = number
        self._bases = bases
        began = 0 if self.reveal is None else self.reveal.staleness
        self._begun = number - began  # the round whose training may give our update
        self._late: Trained | None = None  # what it came to when the round went on without it
        self._is_overtaken = False

    def begin(self, base: Model, carried: Carried | None) -> list[Action]:
        """Trains, unless there is an update already, or one of an earlier round that still counts."""
        if self.reveal is not None:
            return []
        actions: list[Action] = []
        if carried is not None:
            if self._counts_in(self._number, carried.round):
                self._begun, self.is_training = carried.round, carried.update is None
                self.reveal = None if carried.update is None else self._reveal(carried.update)
                return []
            actions = stop(carried)
        self.is_training = True
        return [*actions, Train(round=self._number, base=base)]

    def handle(self, event: Trained | TrainFailed) -> bool:
        """The training is over; whether it settles if there is an update of ours in this round."""
        if event.round != self._begun or not self.is_training:
            return False
        self.is_training = False
        if isinstance(event, Trained) and self._is_overtaken:
            self._late = event
        elif isinstance(event, Trained):
            self.reveal = self._reveal(event)
        return not self._is_overtaken

    def overtake(self) -> list[Action]:
        """The round is decided or goes on without our update: stops what is of no use in the next one."""
        self._is_overtaken = True
        if not self.is_training or self._counts_in(self._number + 1, self._begun):
            return []
        self.is_training = False
        return [StopTraining(round=self._begun)]

    def carried(self, *, is_left_out: bool) -> Carried | None:
        """What goes over to the next round; `is_left_out` says that our reveal came to nothing."""
        late, reveal = self._late, self.reveal
        if reveal is not None and is_left_out and self._counts_in(self._number + 1, self._begun):
            late = Trained(round=self._begun, root=reveal.root, size=reveal.size, examples=reveal.examples)
        return Carried(round=self._begun, update=late) if self.is_training or late is not None else None

    def commit(self, reveal: Reveal) -> Commit:
        """What commits us to `reveal`."""
        members, base = self._seat.membership, self._bases[reveal.staleness]
        value = commitment(members.members[self._seat.me], members.task, base.digest, reveal)
        return Commit(round=self._number, commitment=value)

    def _counts_in(self, number: int, begun: int) -> bool:
        return number - begun <= self._seat.policy.max_staleness

    def _reveal(self, update: Trained) -> Reveal:
        return Reveal(
            round=self._number,
            root=update.root,
            size=update.size,
            nonce=self._seat.rng.randbytes(HASH_SIZE),
            examples=min(update.examples, MAX_EXAMPLES),
            staleness=self._number - update.round,
        )


def stop(carried: Carried | None) -> list[Action]:
    """Ends a training that no round wants any more."""
    return [] if carried is None or carried.update is not None else [StopTraining(round=carried.round)]
