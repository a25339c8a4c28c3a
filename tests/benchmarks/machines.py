"""What the rounds cost without a network: the round machines of all members, in one loop.

    python -m tests.benchmarks.machines [--members N] [--committee N] [--rounds N] [--profile] [--json]

Every message is delivered to each other member, in the order in which they were published; all work is answered
at once, the disk is a list, and what one member found out about a signature holds for all of them. So what is
measured is `federated.rounds` alone: what a member does with a message, and how many messages there are.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import pstats
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
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
    """What was done of one kind: how often, and the processor time in seconds."""

    count: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Found:
    """Of all measured rounds together: processor time and wall time in seconds, and by kind of event."""

    rounds: int
    processor: float = 0.0
    wall: float = 0.0
    published: Counter[str] = field(default_factory=Counter)
    spent: dict[str, Spent] = field(default_factory=dict)


class Loop:
    """The machines of `members`, each with what is published to it, first in, first out."""

    def __init__(self, members: int, committee: int, rounds: int) -> None:
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
        self.queue: deque[tuple[int, Event]] = deque()
        rng = Random(0)
        self.peers = self.manifest.peer_ids
        self.machines = [
            RoundMachine(
                manifest=self.manifest, peer=peer, sign=partial(_sign, peer), rng=rng, verify=self._verify
            )
            for peer in self.peers
        ]
        for number, peer in enumerate(self.peers):
            self.queue.append((number, Started(initial=INITIAL)))
            self.queue.extend((number, PeerConnected(peer=other)) for other in self.peers if other != peer)

    def _verify(self, peer: PeerId, data: bytes, signature: bytes) -> bool:
        key = (peer, data, signature)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _sign(peer, data) == signature
        return known

    def step(self) -> None:
        """Delivers the next event, or lets time pass where there is none."""
        if self.queue:
            number, event = self.queue.popleft()
            self.now += TICK
            actions = self.machines[number].handle(event, self.now)
        else:
            deadlines = [machine.next_deadline() for machine in self.machines]
            self.now, number = min((at, number) for number, at in enumerate(deadlines) if at is not None)
            actions = self.machines[number].handle_timer(self.now)
        for action in actions:
            self._do(number, action)
        self.machines[number].next_deadline()  # as every driver asks after every event

    def _do(self, number: int, action: Action) -> None:
        answer = partial(self._answer, number)
        match action:
            case Publish(body=body):
                self.published[type(body).__name__] += 1
                event = MessageReceived(sender=self.peers[number], body=body)
                self.queue.extend((other, event) for other in range(len(self.peers)) if other != number)
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

    def _answer(self, number: int, event: Event) -> None:
        self.queue.append((number, event))


def _sign(peer: PeerId, data: bytes) -> bytes:
    """A stand-in for Ed25519 that costs nothing: nobody here forges."""
    return sha512(peer.raw + data).digest()


def measure(members: int, committee: int, rounds: int, profile: cProfile.Profile | None) -> Found:
    """The cost of `rounds` rounds, once everybody has heard of everybody."""
    loop = Loop(members, committee, rounds + WARM_UP)
    while loop.round < WARM_UP:
        loop.step()
    found = Found(rounds)
    before = Counter(loop.published)
    gc.collect()
    gc.freeze()
    wall, processor = time.perf_counter(), time.process_time()
    if profile is not None:
        profile.enable()
    while loop.left:
        loop.step()
    if profile is not None:
        profile.disable()
    found.wall, found.processor = time.perf_counter() - wall, time.process_time() - processor
    found.published = loop.published - before
    return found


def by_kind(members: int, committee: int, rounds: int) -> dict[str, Spent]:
    """How often each kind of event was handled in such rounds, and what that took."""
    loop = Loop(members, committee, rounds + WARM_UP)
    while loop.round < WARM_UP:
        loop.step()
    spent: dict[str, Spent] = {}
    while loop.left:
        kind = _kind(loop)
        begin = time.perf_counter()
        loop.step()
        took = spent.setdefault(kind, Spent())
        took.count += 1
        took.seconds += time.perf_counter() - begin
    return spent


def _kind(loop: Loop) -> str:
    if not loop.queue:
        return "timer"
    event = loop.queue[0][1]
    name = type(event.body if isinstance(event, MessageReceived) else event).__name__
    return f"message {name}" if isinstance(event, MessageReceived) else name


def show(found: Found, spent: dict[str, Spent], tell: Callable[[object], None]) -> None:
    """Two tables: all rounds together, and by kind of event."""
    handled = sum(item.count for item in spent.values())
    tell(
        f"{1000 * found.processor / found.rounds:.2f} ms of the processor a round "
        f"({1000 * found.wall / found.rounds:.2f} ms), {handled / found.rounds:.0f} events, "
        f"{1e6 * found.processor / handled:.2f} µs each"
    )
    table = Table()
    for name in ("event", "published a round", "handled a round", "µs each", "ms a round"):
        table.add_column(name, justify="left" if name == "event" else "right")
    for kind, item in sorted(spent.items(), key=lambda pair: -pair[1].seconds):
        sent = found.published[kind.removeprefix("message ")] if kind.startswith("message ") else 0
        table.add_row(
            kind,
            f"{sent / found.rounds:.2f}" if sent else "",
            f"{item.count / found.rounds:.1f}",
            f"{1e6 * item.seconds / item.count:.1f}",
            f"{1000 * item.seconds / found.rounds:.2f}",
        )
    tell(table)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.machines", description=__doc__)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--committee", type=int, default=MAX_COMMITTEE, help="voters of a round (default 64)")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--profile", action="store_true", help="functions by their own time")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sizes = (arguments.members, arguments.committee, arguments.rounds)
    found = measure(*sizes, None)
    spent = by_kind(*sizes)
    if arguments.json:
        handled = sum(item.count for item in spent.values())
        figures = {
            "processor_ms": 1000 * found.processor / found.rounds,
            "wall_ms": 1000 * found.wall / found.rounds,
            "events": handled / found.rounds,
            "published": {kind: count / found.rounds for kind, count in found.published.items()},
        }
        print(json.dumps(figures))
    else:
        show(found, spent, Console().print)
    if arguments.profile:
        profile = cProfile.Profile()
        measure(*sizes, profile)
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
