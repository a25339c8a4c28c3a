"""What the rounds cost without a network: the round machines of all members, in one loop.

    python -m tests.benchmarks.machines [--members N] [--committee N] [--rounds N]
                                           [--together] [--profile] [--json]

Every message is delivered to each other member, in the order in which they were published; all work is
answered at once, nothing is written, and what one member found out of a signature holds for all of them. So
what is measured is `federated.rounds` alone: what a member does with a message, and how many there are.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import pstats
import time
from collections import Counter, deque
from dataclasses import dataclass
from functools import partial
from hashlib import sha256, sha512
from random import Random

from rich.console import Console
from rich.table import Table

from federated.manifest import MAX_COMMITTEE, PluginRef, RoundPolicy, TaskManifest
from federated.rounds.actions import (
    Action,
    Adopt,
    Aggregate,
    Fetch,
    Publish,
    Recompute,
    RoundFinished,
    TaskFinished,
    Train,
    Validate,
)
from federated.rounds.audits import outcome
from federated.rounds.events import (
    Aggregated,
    Event,
    Fetched,
    MessageReceived,
    ModelAdopted,
    PeerConnected,
    Started,
    Trained,
    Validated,
    Verdict,
)
from federated.rounds.machine import RoundMachine
from federated.rounds.messages import Model
from p2p.keys import KeyPair
from p2p.peer_id import PeerId

TICK = 1e-6  # seconds of the machines' clock from one delivery to the next
WARM_UP = 2  # rounds that are not measured: the members hear of each other
SIZE = 1000  # bytes of an update, and of a model
INITIAL = Model(digest=sha256(b"initial").digest(), root=sha256(b"initial root").digest(), size=SIZE)


@dataclass(slots=True)
class Spent:
    """What was done of one kind: how often, and the time in seconds."""

    count: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Found:
    """Of all measured rounds: processor time and wall time in seconds, and how many messages of each kind."""

    rounds: int
    processor: float
    wall: float
    published: Counter[str]


class Loop:
    """The machines of `members`, which take their turns in the order in which events came for them.

    In its turn a machine is told the event that has waited longest, or `together` all that wait for it.
    """

    def __init__(self, members: int, committee: int, rounds: int, *, together: bool = False) -> None:
        keys = [KeyPair.from_seed(number.to_bytes(32)) for number in range(1, members + 1)]
        self.manifest = TaskManifest(
            name="machines",
            seed=1,
            rounds=rounds,
            members=[str(PeerId.from_public_key(key.public)) for key in keys],
            preprocessor=PluginRef(name="digits"),
            trainer=PluginRef(name="numpy-mlp"),
            aggregator=PluginRef(name="weighted-mean"),
            validator=PluginRef(name="update-check"),
            policy=RoundPolicy(train_deadline_s=600, phase_deadline_s=600),
            committee=committee,
        )
        self._known: dict[tuple[PeerId, bytes, bytes], bool] = {}
        self._models: dict[bytes, Model] = {}
        self.now = 0.0
        self.round = 0  # of the member that is furthest
        self.left = members
        self.published: Counter[str] = Counter()
        self._together = together
        self._turns: deque[int] = deque()
        self._events: list[deque[Event]] = [deque() for _ in range(members)]
        rng = Random(0)
        self.peers = self.manifest.peer_ids
        self.machines = [
            RoundMachine(
                manifest=self.manifest, peer=peer, sign=partial(_sign, peer), rng=rng, verify=self._verify
            )
            for peer in self.peers
        ]
        for number, peer in enumerate(self.peers):
            self._put(number, Started(initial=INITIAL))
            for other in self.peers:
                if other != peer:
                    self._put(number, PeerConnected(peer=other))

    def _verify(self, peer: PeerId, data: bytes, signature: bytes) -> bool:
        key = (peer, data, signature)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _sign(peer, data) == signature
        return known

    @property
    def next_event(self) -> Event | None:
        """The event that is told next; None when nothing happens but that time passes."""
        return self._events[self._turns[0]][0] if self._turns else None

    def step(self) -> None:
        """Gives the next member its turn, or lets time pass where nobody has one."""
        if self._turns:
            number = self._turns.popleft()
            waiting = self._events[number]
            self.now += TICK
            if self._together:
                self._events[number] = deque()
                actions = self.machines[number].handle_all(waiting, self.now)
            else:
                actions = self.machines[number].handle(waiting.popleft(), self.now)
        else:
            deadlines = [machine.next_deadline() for machine in self.machines]
            self.now, number = min((at, number) for number, at in enumerate(deadlines) if at is not None)
            actions = self.machines[number].handle_timer(self.now)
        for action in actions:
            self._do(number, action)
        self.machines[number].next_deadline()  # as every driver asks after every event

    def _do(self, number: int, action: Action) -> None:
        answer = partial(self._put, number)
        match action:
            case Publish(body=body):
                self.published[type(body).__name__] += 1
                event = MessageReceived(sender=self.peers[number], body=body)
                for other in range(len(self.peers)):
                    if other != number:
                        self._put(other, event)
            case Train(round=at):
                root = sha256(self.peers[number].raw + at.to_bytes(8)).digest()
                answer(Trained(round=at, root=root, size=SIZE, examples=10))
            case Fetch(round=at, root=root):
                answer(Fetched(round=at, root=root))
            case Validate(round=at, input=item):
                answer(Validated(round=at, root=item.root, rule=None))
            case Aggregate(round=at, inputs=inputs, listed=listed):
                known = self._models.get(listed)
                if known is None:
                    found = sha256(listed + at.to_bytes(8)).digest()
                    known = self._models[listed] = Model(digest=found, root=found, size=SIZE)
                answer(Aggregated(round=at, inputs=inputs, model=known))
            case Recompute():
                answer(outcome(action, Verdict.AGREES))
            case Adopt(certificate=certificate):
                answer(ModelAdopted(round=certificate.round))
            case RoundFinished(round=at):
                self.round = max(self.round, at)
            case TaskFinished():
                self.left -= 1

    def _put(self, number: int, event: Event) -> None:
        waiting = self._events[number]
        if not (self._together and waiting):
            self._turns.append(number)
        waiting.append(event)


def _sign(peer: PeerId, data: bytes) -> bytes:
    """A stand-in for Ed25519 that costs nothing: nobody here forges."""
    return sha512(peer.raw + data).digest()


def warmed_up(loop: Loop) -> Loop:
    """The loop, once everybody has heard of everybody."""
    while loop.round < WARM_UP:
        loop.step()
    return loop


def measure(loop: Loop, profile: cProfile.Profile | None = None) -> Found:
    """What all rounds cost that the loop has left."""
    before, rounds = Counter(loop.published), loop.manifest.rounds - loop.round
    gc.collect()
    gc.freeze()
    wall, processor = time.perf_counter(), time.process_time()
    if profile is not None:
        profile.enable()
    while loop.left:
        loop.step()
    if profile is not None:
        profile.disable()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    gc.unfreeze()
    return Found(rounds, processor, wall, loop.published - before)


def by_kind(loop: Loop) -> dict[str, Spent]:
    """How often each kind of event is told in the rounds that are left, and what that takes."""
    spent: dict[str, Spent] = {}
    while loop.left:
        took = spent.setdefault(_kind(loop.next_event), Spent())
        begin = time.perf_counter()
        loop.step()
        took.count += 1
        took.seconds += time.perf_counter() - begin
    return spent


def _kind(event: Event | None) -> str:
    if event is None:
        return "timer"
    return (
        f"message {type(event.body).__name__}" if isinstance(event, MessageReceived) else type(event).__name__
    )


def table_of(found: Found, spent: dict[str, Spent]) -> Table:
    """What each kind of event costs in a round."""
    table = Table()
    for name in ("event", "published", "told", "µs each", "ms in all"):
        table.add_column(name, justify="left" if name == "event" else "right")
    for kind, item in sorted(spent.items(), key=lambda pair: -pair[1].seconds):
        sent = found.published[kind.removeprefix("message ")]
        table.add_row(
            kind,
            f"{sent / found.rounds:.1f}" if kind.startswith("message ") else "",
            f"{item.count / found.rounds:.1f}",
            f"{1e6 * item.seconds / item.count:.1f}",
            f"{1000 * item.seconds / found.rounds:.2f}",
        )
    return table


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.machines")
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--committee", type=int, default=MAX_COMMITTEE, help="voters of a round (default 64)")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--together", action="store_true", help="machines are told all that waits at once")
    parser.add_argument("--profile", action="store_true", help="functions by their own time")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    def loop(*, together: bool = False) -> Loop:
        rounds = arguments.rounds + WARM_UP
        return warmed_up(Loop(arguments.members, arguments.committee, rounds, together=together))

    found = measure(loop(together=arguments.together))
    processor, wall = 1000 * found.processor / found.rounds, 1000 * found.wall / found.rounds
    if arguments.json:
        print(json.dumps({"processor_ms": processor, "wall_ms": wall, "published": found.published}))
    else:
        console = Console()
        console.print(f"{processor:.2f} ms of the processor a round, {wall:.2f} ms by the clock")
        console.print(table_of(found, by_kind(loop())))
    if arguments.profile:
        profile = cProfile.Profile()
        measure(loop(together=arguments.together), profile)
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
