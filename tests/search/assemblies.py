"""Whole rounds of real machines with one member that cheats on its update, by seed.

    COPIER     publishes the commitment of another as its own, and then the other's reveal
    MATCHER    commits itself to one update, and reveals another one once it saw those of the others
    LATECOMER  commits itself only when all others have revealed theirs
    IDLER      says that it listens, and nothing else
    REPLAYER   offers what counted in round 1 once more in round 2, as if it were late
    TWIN       commits itself to one update before some and to another before others
    nobody     there are crashes, loss and partitions only

In some, updates may be late, and rounds go on without those that are slow. In some, members announce
that they are too slow to aggregate, true or not, and one is relieved of it.

No update that is cheated with may be in a certified block (one of a twin may), no two models may be
certified for a round, nobody who is honest may be said to have broken a rule, a twin may not make a round be
skipped, and the task must end once all is healed.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from functools import partial
from hashlib import sha256
from random import Random

from federated.rounds.actions import Misbehaved
from federated.rounds.events import Measured, MessageReceived, Phase
from federated.rounds.messages import Body, Capability, Commit, Hello, Reveal, commitment
from tests.federated.rounds.network import INITIAL, UPDATE_SIZE, Network, Node, bodies
from tests.search.byzantine import Outcome
from tests.search.parliament import Violation

ROUNDS = 3
HEALS_AT = 12.0  # seconds
LIMIT = 150.0  # seconds for the whole task
OPEN = (Phase.IDLE, Phase.SYNC, Phase.TRAIN, Phase.COMMIT)  # in which a commitment is in time


class Cheat(Enum):
    """What one member does."""

    NOBODY = "nobody"
    COPIER = "copier"
    MATCHER = "matcher"
    LATECOMER = "latecomer"
    IDLER = "idler"
    REPLAYER = "replayer"
    TWIN = "twin"


class Assembly:
    """One task of a seed."""

    def __init__(self, seed: int) -> None:
        rng = Random(seed)
        count = rng.choice((4, 4, 4, 5, 7))
        self.cheat = rng.choice((*Cheat, Cheat.COPIER, Cheat.LATECOMER))
        announced = Random(f"announced {seed}")
        if announced.random() < 0.4:  # with so many, one can be spared
            count = announced.choice((3, 6)) if self.cheat is Cheat.NOBODY else 6
        self.rates = [announced.choice((0.0, 1.0, 2.0, 1e9)) for _ in range(count)]
        late = Random(f"late {seed}")
        is_late = self.cheat is Cheat.REPLAYER or late.random() < 0.5
        self.lossy = self.cheat in (Cheat.NOBODY, Cheat.IDLER)
        self.network = Network(
            count,
            seed,
            rounds=ROUNDS,
            loss=rng.choice((0.0, 0.2, 0.4)) if self.lossy else 0.0,
            delay=(0.01, rng.choice((0.05, 0.3))),
            duplicates=rng.choice((0.0, 0.3)),
            training=(0.1, rng.choice((0.5, 2.0))),
            quorum=late.choice((1.0, 0.6)) if is_late and self.cheat is not Cheat.TWIN else 1.0,
            max_staleness=late.choice((1, 2)) if is_late else 0,
        )
        self.rng = rng
        self.cheater: Node | None = None
        self._said: set[tuple[int, str]] = set()
        if self.cheat is not Cheat.NOBODY:
            self.cheater = self.network.nodes[rng.randrange(count)]
            self.network.tamper = self._tamper
            if self.cheat in (Cheat.COPIER, Cheat.LATECOMER):
                self.cheater.trains = False

    def _start(self, *nodes: Node) -> None:
        """Starts members, all of them when none is named; each says what it can do."""
        before = [node.life for node in self.network.nodes]
        self.network.start(*nodes)
        for node, life, rate in zip(self.network.nodes, before, self.rates, strict=True):
            if node.life != life:
                capability = Capability(
                    round=0,
                    steps_per_second=1.0,
                    bytes_down=1e9,
                    bytes_up=1e9,
                    aggregate_bytes_per_second=rate,
                    memory=1,
                    cores=1,
                )
                self.network.tell(node, node.life, Measured(capability=capability))

    def run(self) -> None:
        """Raises `Violation` when a rule is broken."""
        network = self.network
        self._start()
        if self.lossy:
            for _ in range(self.rng.randrange(6)):
                network.after((0.0, HEALS_AT), self._crash)
            network.after((0.0, HEALS_AT), self._split)
        network.at(HEALS_AT, self._heal)
        if self.cheat not in (Cheat.NOBODY, Cheat.MATCHER, Cheat.IDLER):
            network.after((0.0, 0.1), self._look)
        try:
            network.run(self._is_over, LIMIT)
        except AssertionError as error:
            said = str(error)
            rule = "agreement" if "models are certified" in said else "votes"
            stuck = ("not done by", "ever happen", "would spin")
            rule = "liveness" if any(words in said for words in stuck) else rule
            raise Violation(
                f"{rule}: {said.splitlines()[0] if said else 'an assertion of the network'}"
            ) from error
        self._look_back()

    def _is_over(self) -> bool:
        network = self.network
        return network.now >= HEALS_AT and all(
            node.done for node in network.nodes if node is not self.cheater
        )

    # faults

    def _crash(self) -> None:
        node = self.rng.choice(self.network.nodes)
        node.kill_after = node.operations + self.rng.randrange(8)
        self.network.after((0.1, 2.0), partial(self._start, node))

    def _split(self) -> None:
        self.network.divide([self.rng.randrange(2) for _ in self.network.nodes])
        self.network.after((0.5, 4.0), self.network.heal)

    def _heal(self) -> None:
        for node in self.network.nodes:
            node.kill_after = None
        self.network.loss = 0.0
        self.network.heal()
        self._start()

    # the cheat

    def _tamper(self, sender: Node, to: Node, body: Body) -> Body | None:
        """What the cheat says instead of `body`."""
        if sender is not self.cheater:
            return body
        if self.cheat is Cheat.IDLER:
            return body if isinstance(body, Hello) else None
        if self.cheat is Cheat.MATCHER and isinstance(body, Reveal):
            return self._reveal(body.round)
        if self.cheat is Cheat.TWIN and isinstance(body, Commit | Reveal):
            return self._twin(body) if to.number % 2 else body
        if self.cheat is Cheat.REPLAYER and body.round == 1:
            return body
        if self.cheat is not Cheat.MATCHER and isinstance(body, Commit | Reveal):
            return body if (body.round, type(body).__name__) in self._said else None
        return body

    def _look(self) -> None:
        """What the cheat does of its own accord, from time to time."""
        network, cheater = self.network, self.cheater
        assert cheater is not None
        network.after((0.02, 0.05), self._look)
        if cheater.machine is None:
            return
        number = cheater.machine.round
        if self.cheat is Cheat.COPIER:
            commits = [body for body in bodies(network, Commit) if body.round == number]
            if commits:
                self._say(commits[0])
                victim = next(
                    sender for _, sender, body in network.sent if body is commits[0] or body == commits[0]
                )
                for reveal in bodies(network, Reveal, victim):
                    if reveal.round == number:
                        self._say(reveal)
            return
        if self.cheat is Cheat.TWIN:
            self._spread()
            return
        if self.cheat is Cheat.REPLAYER:
            self._replay(number)
            return
        others = [node.machine for node in network.nodes if node is not cheater and node.machine]
        if all(machine.round == number and machine.phase not in OPEN for machine in others):
            reveal = self._reveal(number)
            base = network.certified.get(number - 1, cheater.base.digest)
            value = commitment(cheater.peer, network.manifest.task_id, base, reveal)
            self._say(Commit(round=number, commitment=value))
            network.after((0.1, 0.2), partial(self._say, reveal))

    def _twin(self, body: Commit | Reveal) -> Commit | Reveal:
        """What the other half is told."""
        assert self.cheater is not None
        twin = self._reveal(body.round)
        if isinstance(body, Reveal):
            return twin
        base = self.network.certified.get(body.round - 1, INITIAL.digest)
        value = commitment(self.cheater.peer, self.network.manifest.task_id, base, twin)
        return Commit(round=body.round, commitment=value)

    def _spread(self) -> None:
        """As gossip does it: in the end everybody hears what anybody was told."""
        assert self.cheater is not None
        for body in [
            *bodies(self.network, Commit, self.cheater.number),
            *bodies(self.network, Reveal, self.cheater.number),
        ]:
            key = (body.round, f"{type(body).__name__} of both")
            if key not in self._said:
                self._said.add(key)
                for node in self.network.nodes:
                    for said in (body, self._twin(body)):
                        event = MessageReceived(sender=self.cheater.peer, body=said)
                        deliver = partial(self.network._deliver, self.cheater, node, event)
                        if node is not self.cheater:
                            low, high = self.network.delay
                            self.network.after((low, 3 * high), deliver)  # a few hops

    def _replay(self, number: int) -> None:
        """In round 2, the update of round 1 again."""
        assert self.cheater is not None
        known = [body for body in bodies(self.network, Reveal, self.cheater.number) if body.round == 1]
        if number == 2 and known:
            reveal = replace(known[0], round=2, staleness=1)
            value = commitment(self.cheater.peer, self.network.manifest.task_id, INITIAL.digest, reveal)
            self._say(Commit(round=2, commitment=value))
            self._say(reveal)

    def _reveal(self, number: int) -> Reveal:
        """An update of the cheat's, always the same in a round."""
        assert self.cheater is not None
        root = sha256(b"cheat" + bytes([number])).digest()
        self.cheater.disk.blobs[root] = True
        return Reveal(round=number, root=root, size=UPDATE_SIZE, nonce=bytes(32), examples=5)

    def _say(self, body: Body) -> None:
        key = (body.round, type(body).__name__)
        if key not in self._said and self.cheater is not None and self.cheater.machine is not None:
            self._said.add(key)
            self.network._publish(self.cheater, body)

    # what may never be

    def _look_back(self) -> None:
        for node in self.network.nodes:
            if node is self.cheater:
                continue
            for report in node.finished:
                if self.cheat is Cheat.TWIN and report.skipped:
                    raise Violation(f"liveness: round {report.round} is skipped for a twin's sake")
                cheated = self.cheater is not None and self.cheater.peer in report.participants
                if cheated and self._is_cheated(report.round):
                    raise Violation(f"cheats: a {self.cheat.value} is in the block of round {report.round}")
            for note in node.notes:
                if isinstance(note, Misbehaved) and (self.cheater is None or note.peer != self.cheater.peer):
                    raise Violation(f"no false charge: an honest member is said to break {note.rule}")

    def _is_cheated(self, number: int) -> bool:
        """Whether no update of the cheat may count in a round."""
        if self.cheater is None or self.cheat is Cheat.TWIN:
            return False
        if self.cheat is not Cheat.REPLAYER:
            return True
        counted = bool(self.network.blocks[1].participants >> self.cheater.number & 1)
        return number == 2 and counted


def search_assembly(seed: int) -> Outcome:
    """Runs one seed."""
    try:
        Assembly(seed).run()
    except Violation as violation:
        return Outcome(seed=seed, honest=True, broken=str(violation))
    return Outcome(seed=seed, honest=True)
