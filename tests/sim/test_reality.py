"""The same small scenario on the simulator and on real processes over loopback: both come to the same."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio

from federated.manifest import TaskManifest
from p2p.data_dir import IDENTITY, save_identity
from p2p.peer_id import PeerId
from sim.heap import EventHeap
from sim.identity import key_of, rng_of
from sim.network import Network
from sim.record import Recorder
from sim.run import make_rung, simulate
from sim.rung import Setup
from sim.scenario.model import Scenario
from sim.task import manifest_of
from tests.processes import Event, Process, run_peer

SEED = 4
NODES = range(4)
KEYS = [key_of(SEED, node) for node in NODES]
PEERS = [str(PeerId.from_public_key(key.public)) for key in KEYS]
RUNGS = ["cores", "light", "full"]
LIMIT = 150.0  # seconds for what takes the processes three; the machine may have other work

Delivery = tuple[int, int, str, str]  # receiver, origin, topic, line
Line = tuple[int, str]  # origin, what it publishes

TOPICS = [["red", "blue"], ["blue", "red"], ["red"], ["blue"]]  # of each node; it publishes on the first


@dataclass(frozen=True, slots=True)
class Wave:
    """Lines that are published at once, when so many nodes run; it is over when all who should have them do.

    A node that has just come says so in a wave of its own: when that is over, the others know that it
    listens. It has its connections some moments before, and what is published in these passes it by.
    """

    running: int
    lines: list[Line]


WAVES = [
    Wave(2, [(0, "node 0 is here")]),
    Wave(2, [(1, "node 1 is here")]),
    Wave(3, [(2, "node 2 is here")]),
    Wave(4, [(3, "node 3 is here")]),
    Wave(4, [(node, text) for node in NODES for text in ("", "grüße", "x" * 100_000, str(node))]),
    Wave(4, [(node, f"{number} of {node}") for number in range(10) for node in NODES]),
]

Result = tuple[str, bool, int, float, float]  # digest, skipped, participants, accuracy, loss


def scenario(rung: str, **parts: Any) -> Scenario:
    """Four nodes that are all connected, with the network of one machine."""
    settings = {"topology": {"kind": "full"}, "network": {"latency": {"kind": "constant", "ms": 0.1}}}
    return Scenario.model_validate({"name": "test", "peers": len(NODES), "rung": rung, **settings, **parts})


class Loopback:
    """Real processes, as they come: each dials those before it, with the node's identity in its folder."""

    def __init__(self, stack: AsyncExitStack, folder: Path, arguments: Callable[[int], list[str]]) -> None:
        self.processes: list[Process] = []
        self._stack, self._folder, self._arguments = stack, folder, arguments
        self._join: list[str] = []

    async def start(self) -> None:
        """One more process runs, connected to all others."""
        node = len(self.processes)
        home = self._folder / str(node)
        home.mkdir()
        save_identity(home / IDENTITY, KEYS[node])
        options = ["--data-dir", str(home), *self._join, *self._arguments(node)]
        process, listening = await self._stack.enter_async_context(run_peer(*options))
        assert listening["peer_id"] == PEERS[node]
        self._join += ["--bootstrap", listening["addrs"][0]]
        for number, other in enumerate(self.processes):
            await process.wait_for("connected", partial(is_peer, number))
            await other.wait_for("connected", partial(is_peer, node))
        self.processes.append(process)


def is_peer(node: int, event: Event) -> bool:
    return bool(event["peer"] == PEERS[node])


@asynccontextmanager
async def open_loopback(arguments: Callable[[int], list[str]]) -> AsyncIterator[Loopback]:
    """No processes yet; those that come have these `arguments`. Fails after `LIMIT`."""
    with trio.fail_after(LIMIT), TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            yield Loopback(stack, Path(folder), arguments)


# Gossip


def expected(wave: Wave) -> list[Delivery]:
    """What a wave comes to: every line once at everybody who runs and subscribed, but for its origin."""
    return sorted(
        (receiver, origin, TOPICS[origin][0], line)
        for origin, line in wave.lines
        for receiver in range(wave.running)
        if receiver != origin and TOPICS[origin][0] in TOPICS[receiver]
    )


async def talk() -> list[Delivery]:
    """What real processes deliver of all waves, in order."""
    delivered: list[Delivery] = []

    async def listen(node: int, process: Process, count: int) -> None:
        for _ in range(count):
            event = await process.wait_for("message")
            line = base64.b64decode(event["data"]).decode()
            delivered.append((node, PEERS.index(event["from"]), event["topic"], line))

    async with open_loopback(lambda node: [f"--subscribe={topic}" for topic in TOPICS[node]]) as loopback:
        for wave in WAVES:
            while len(loopback.processes) < wave.running:
                await loopback.start()
            receivers = [delivery[0] for delivery in expected(wave)]
            async with trio.open_nursery() as nursery:
                for node, process in enumerate(loopback.processes):
                    nursery.start_soon(listen, node, process, receivers.count(node))
                for node, line in wave.lines:
                    await loopback.processes[node].send(line)
        for process in loopback.processes:
            process.process.terminate()
            with pytest.raises(AssertionError, match="no 'message' the process ended"):
                await process.wait_for("message")  # that came twice, or should not have come
    return sorted(delivered)


class Deliveries(Recorder):
    """Remembers who got what, with the payloads."""

    def __init__(self, heap: EventHeap, scenario: Scenario) -> None:
        super().__init__(heap, scenario, honest=lambda node: True, calm=lambda begin, end: True)
        self.delivered_lines: list[Delivery] = []
        self.line = ""  # that is being published
        self._lines: dict[bytes, str] = {}  # by message id

    def published(self, node: int, topic: str, message_id: bytes, size: int) -> None:
        super().published(node, topic, message_id, size)
        self._lines[message_id] = self.line

    def delivered(self, node: int, topic: str, message_id: bytes, origin: int, received_from: int) -> None:
        super().delivered(node, topic, message_id, origin, received_from)
        self.delivered_lines.append((node, origin, topic, self._lines[message_id]))


def simulated_talk(rung_name: str) -> list[Delivery]:
    """What the simulator delivers of all waves, in order."""
    played = scenario(rung_name)
    heap = EventHeap(end=float(len(WAVES) + 5))
    books = Deliveries(heap, played)
    network = Network(heap, rng_of(SEED, "network"), played.network, len(NODES))
    rung = make_rung(
        Setup(
            scenario=played,
            seed=SEED,
            heap=heap,
            network=network,
            observer=books,
            keys=KEYS,
            tasks={},
            adversaries={},
        )
    )

    def publish(node: int, line: str) -> None:
        books.line = line
        rung.publish(node, TOPICS[node][0], line.encode())

    running = 0
    for number, wave in enumerate(WAVES, 1):
        for node in range(running, wave.running):
            heap.plan(number - 0.5, rung.start, node)
            for topic in TOPICS[node]:
                heap.plan(number - 0.5, rung.subscribe, node, topic)
            for other in range(node):
                heap.plan(number - 0.4, rung.connect, node, other)
        running = wave.running
        for node, line in wave.lines:
            heap.plan(float(number), publish, node, line)
    rung.run()
    assert len(books.violations) == 0
    return sorted(books.delivered_lines)


@pytest.fixture(scope="module")
def real_talk() -> list[Delivery]:
    return trio.run(talk)


def test_real_processes_deliver_every_line_once(real_talk: list[Delivery]) -> None:
    assert real_talk == sorted(delivery for wave in WAVES for delivery in expected(wave))


@pytest.mark.parametrize("rung", RUNGS)
def test_the_simulator_delivers_what_real_processes_do(rung: str, real_talk: list[Delivery]) -> None:
    assert simulated_talk(rung) == real_talk


# Training

ROUNDS = 3
ABSENT = 6  # seconds that the members wait for one that never comes, and that a phase may take then


def task(running: int) -> dict[str, Any]:
    """A task of all nodes, as a scenario has it, of which so many run."""
    patience = 30 if running == len(NODES) else ABSENT
    return {"members": len(NODES), "rounds": ROUNDS, "train_seconds": 0.1, "phase_deadline": patience}


async def train(manifest: TaskManifest, path: Path, running: int) -> list[list[Result]]:
    """What each of the real processes says of every round."""
    async with open_loopback(lambda _: ["--task", str(path)]) as loopback:
        for _ in range(running):
            await loopback.start()
        results = []
        for process in loopback.processes:
            rounds = [await process.wait_for("round") for _ in range(ROUNDS)]
            assert [event["round"] for event in rounds] == list(range(1, ROUNDS + 1))
            assert {event["task"] for event in rounds} == {manifest.task_id.hex()}
            results.append([_result_of(event) for event in rounds])
        return results


def _result_of(event: Event) -> Result:
    participants = len(event["participants"])
    return event["digest"], event["skipped"], participants, event["accuracy"], event["loss"]


def simulated_training(rung: str, running: int) -> list[list[Result]]:
    """What each of the simulator's nodes says of every round."""
    absent = {"kind": "crash", "at": 0, "who": {"nodes": [*NODES[running:]]}}
    faults = [absent] if running < len(NODES) else []
    outcome = simulate(scenario(rung, task=[task(running)], faults=faults), SEED)
    assert outcome.holds, [check for check in outcome.checks if not check.holds]
    rounds = outcome.recorder.rounds.of("digits")
    assert [one.reports for one in rounds] == [running] * ROUNDS
    return [
        [
            (one.digest.hex(), one.skipped, one.participants, one.accuracy[report], one.loss[report])
            for one in rounds
        ]
        for report in range(running)
    ]


@pytest.fixture(scope="module", params=[4, 3], ids=["all", "all but one"])
def running(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def real_training(running: int, tmp_path_factory: pytest.TempPathFactory) -> list[list[Result]]:
    [load] = scenario("cores", task=[task(running)]).task
    manifest = manifest_of(load, SEED, [PeerId.parse(peer) for peer in PEERS])
    path = tmp_path_factory.mktemp("reality") / "task.json"
    path.write_bytes(manifest.canonical())
    return trio.run(train, manifest, path, running)


def test_real_processes_all_learn_together(running: int, real_training: list[list[Result]]) -> None:
    first = real_training[0]
    assert real_training == [first] * running
    assert [participants for _, _, participants, _, _ in first] == [running] * ROUNDS
    accuracies = [accuracy for _, _, _, accuracy, _ in first]
    assert accuracies[-1] > accuracies[0] > 0.5


@pytest.mark.parametrize("rung", RUNGS)
def test_the_simulator_trains_the_models_of_real_processes(
    rung: str, running: int, real_training: list[list[Result]]
) -> None:
    assert simulated_training(rung, running) == real_training


@pytest.mark.parametrize("rung", RUNGS)
def test_a_member_that_cannot_take_part_says_why(rung: str) -> None:
    """As the process that reports its task as refused: its data is in a file that nobody has."""
    lacking = {**task(len(NODES)), "preprocessor": "npz", "phase_deadline": 1}
    outcome = simulate(scenario(rung, task=[lacking]), SEED)
    [(reason, count)] = outcome.recorder.waits.items()
    assert "data folder" in reason
    assert count == len(NODES)
    assert not outcome.holds
