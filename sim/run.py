"""One run of a scenario, from its seed to what came out.

    outcome = simulate(load("mixed"), seed=1)
    outcome.holds, outcome.trace_hash, outcome.figures, outcome.checks

The same scenario, seed and version of the code give the same outcome, byte for byte, anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2p.errors import InvalidInput
from p2p.peer_id import PeerId
from sim.director import Director, Interval, Trouble, adversaries_of, members_of
from sim.environment import one_thread
from sim.heap import EventHeap
from sim.identity import key_of, rng_of
from sim.network import Network
from sim.record import Check, Figure, Recorder, figures_of, hash_of, judge, results_of
from sim.rung import Rung, RungName, Setup
from sim.task import manifest_of

if TYPE_CHECKING:
    from federated.manifest import TaskManifest
    from p2p.keys import KeyPair
    from sim.record import PubsubTrace
    from sim.scenario.model import Scenario

MAX_SEED = (1 << 63) - 1
TICK = 1.0  # virtual seconds between two samples

_running: list[EventHeap] = []  # of this process: those that `interrupt` ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is, in virtual seconds; the planned end moves while a task is under way."""

    virtual_seconds: float
    planned_seconds: float
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to. Equal trace hashes: the same run; equal result hashes: the same achieved."""

    scenario: Scenario
    seed: int
    peers: int
    rung: RungName
    virtual_seconds: float
    events: int
    trace_hash: str
    results_hash: str
    figures: Mapping[str, Figure]
    checks: Sequence[Check]
    recorder: Recorder  # what plots are made of
    trouble: Sequence[Interval]  # when something was wrong, by its begin

    @property
    def holds(self) -> bool:
        """Whether every check does."""
        return all(check.holds for check in self.checks)


def simulate(
    scenario: Scenario,
    seed: int,
    *,
    progress: Callable[[Progress], None] | None = None,
    events: PubsubTrace | None = None,
) -> Outcome:
    """Runs the scenario. `progress` is told every virtual second, `events` gets the trace for other tools.

    Raises `InvalidInput` for what the scenario asks and cannot be, `SimulationError` when the run is stuck.
    """
    if not 0 <= seed <= MAX_SEED:
        raise InvalidInput(f"the seed {seed} is not within 0 and {MAX_SEED}")
    heap, trouble = EventHeap(), Trouble()
    network = Network(heap, rng_of(seed, "network"), scenario.network, scenario.peers)
    adversaries = adversaries_of(scenario, rng_of(seed, "director", "adversaries"))
    recorder = _Watched(
        heap, scenario, honest=lambda node: node not in adversaries, calm=trouble.calm, events=events
    )
    keys = [key_of(seed, node) for node in range(scenario.peers)]
    members = _members(scenario, seed)
    setup = Setup(
        scenario=scenario,
        seed=seed,
        heap=heap,
        network=network,
        observer=recorder,
        keys=keys,
        tasks=_tasks(scenario, seed, keys, members),
        adversaries=adversaries,
        frame=recorder.trace.frame,
    )
    rung = make_rung(setup)
    recorder.director = Director(setup, rung, recorder, trouble, members)
    recorder.director.plan()
    heap.plan(min(TICK, heap.end), _Watch(recorder, rung, network, progress).look)
    _running.append(heap)
    try:
        with one_thread():
            rung.run()
    finally:
        _running.remove(heap)
    return _outcome(scenario, seed, recorder, trouble)


def interrupt() -> bool:
    """Ends the simulation of this process with `KeyboardInterrupt`; whether one runs. For signal handlers.

    It ends between two events, so that everything in it is closed in order.
    """
    for heap in _running:
        heap.interrupt(KeyboardInterrupt())
    return bool(_running)


def _members(scenario: Scenario, seed: int) -> dict[str, list[int]]:
    """The nodes that take part in each task."""
    return {
        load.name: members_of(load, scenario.peers, rng_of(seed, "director", "task", number))
        for number, load in enumerate(scenario.task)
    }


def _tasks(
    scenario: Scenario, seed: int, keys: Sequence[KeyPair], members: Mapping[str, Sequence[int]]
) -> dict[str, TaskManifest]:
    """The manifest of each task."""
    return {
        load.name: manifest_of(
            load, seed, [PeerId.from_public_key(keys[node].public) for node in members[load.name]]
        )
        for load in scenario.task
    }


def make_rung(setup: Setup) -> Rung:
    """The rung that the scenario names. The `light` and `full` ones bring trio, so only they import it."""
    if setup.scenario.rung == "cores":
        from sim.cores import CoresRung

        return CoresRung(setup)
    from sim.live import LiveRung

    return LiveRung(setup)


class _Watched(Recorder):
    """The recorder of a run; the director hears of what it waits for."""

    director: Director

    def looked_up(
        self, node: int, operation: int, *, kind: str, ok: bool, seconds: float, hops: int, result: bytes
    ) -> None:
        """A DHT operation ended."""
        super().looked_up(node, operation, kind=kind, ok=ok, seconds=seconds, hops=hops, result=result)
        self.director.looked_up(operation, ok)

    def finished_round(
        self,
        node: int,
        task: str,
        number: int,
        *,
        digest: bytes,
        skipped: bool,
        participants: int,
        measured: Mapping[str, float | None],
    ) -> None:
        """The node is through with a round."""
        super().finished_round(
            node,
            task,
            number,
            digest=digest,
            skipped=skipped,
            participants=participants,
            measured=measured,
        )
        self.director.finished_round(task, number)

    def finished_task(self, node: int, task: str) -> None:
        """The node is through with the task."""
        super().finished_task(node, task)
        self.director.finished_task(node, task)


class _Watch:
    """Looks at the run every virtual second, and at its end, when the network still stands."""

    def __init__(
        self, recorder: Recorder, rung: Rung, network: Network, progress: Callable[[Progress], None] | None
    ) -> None:
        self._recorder, self._rung, self._network, self._progress = recorder, rung, network, progress

    def look(self) -> None:
        """A sample, and word of how far the run is."""
        heap = self._recorder.heap
        if self._progress is not None:
            self._progress(Progress(virtual_seconds=heap.now, planned_seconds=heap.end, events=heap.events))
        if heap.now >= heap.end:
            self._recorder.finish(self._rung, self._network)
        else:
            self._recorder.sample(self._rung)
            heap.plan(min(heap.now + TICK, heap.end), self.look)


def _outcome(scenario: Scenario, seed: int, recorder: Recorder, trouble: Trouble) -> Outcome:
    return Outcome(
        scenario=scenario,
        seed=seed,
        peers=scenario.peers,
        rung=scenario.rung,
        virtual_seconds=min(recorder.heap.now, recorder.heap.end),
        events=recorder.heap.events,
        trace_hash=recorder.trace_hash,
        results_hash=hash_of(results_of(recorder)),
        figures=figures_of(recorder),
        checks=judge(recorder),
        recorder=recorder,
        trouble=trouble.intervals,
    )
