"""Whole peers under orders and faults: what a crash takes, what comes back, and that no bug stays unseen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import trio

from federated.errors import DataError
from p2p.errors import ConnectionLost, RemoteProtocolError
from p2p.kad import Kad, content_key
from p2p.stream import Stream
from sim.heap import EventHeap, SimulationError
from sim.identity import key_of, rng_of
from sim.live import LiveRung
from sim.live.bugs import NOBODY
from sim.live.dht import Dht
from sim.live.node import RESTART, Node
from sim.network import Network
from sim.run import simulate
from sim.rung import Setup
from sim.scenario.model import Adversary, Selection
from tests.sim.live.support import RUNGS, scenario

TOPIC = "news"
CONSTANT = {"latency": {"kind": "constant", "ms": 50}, "jitter": 0}


@dataclass
class Notes:
    """An observer that writes down (when, what, node, …)."""

    heap: EventHeap
    said: list[tuple[Any, ...]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in NAMES:
            raise AttributeError(name)

        def note(node: int, *arguments: Any, **more: Any) -> None:
            self.said.append((self.heap.now, name, node, *arguments, *more.values()))

        return note

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """What was said by this name: (when, node, …)."""
        return [(at, *rest) for at, said, *rest in self.said if said == name]


NAMES = {
    *("started", "crashed", "connected", "disconnected", "joined", "left", "grafted", "pruned", "graylisted"),
    *("published", "delivered", "duplicated", "rejected", "looked_up", "waiting", "failed"),
}


class Stage:
    """A rung, and what is planned for it."""

    def __init__(
        self,
        rung: str,
        *,
        peers: int = 4,
        seed: int = 1,
        adversaries: Mapping[int, Adversary] | None = None,
        **parts: Any,
    ) -> None:
        self.heap = EventHeap()
        parts = {"rung": rung, "peers": peers, "network": CONSTANT, **parts}
        self.scenario = scenario(**parts)
        self.network = Network(self.heap, rng_of(seed, "network"), self.scenario.network, peers)
        self.notes = Notes(self.heap)
        self.rung = LiveRung(
            Setup(
                scenario=self.scenario,
                seed=seed,
                heap=self.heap,
                network=self.network,
                observer=self.notes,
                keys=[key_of(seed, node) for node in range(peers)],
                tasks={},
                adversaries=adversaries or {},
            )
        )
        for node in range(peers):
            self.at(0, self.rung.start, node)

    def at(self, at: float, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        self.heap.plan(at, lambda: call(*arguments, **named))

    def see(self, at: float, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What `call` returns at that time."""
        seen: list[Any] = []
        self.heap.plan(at, lambda: seen.append(call(*arguments)))
        return seen

    def run(self, end: float) -> Stage:
        self.heap.end = end
        self.rung.run()
        return self

    def delivered(self) -> list[tuple[int, bytes]]:
        """(node, message id) of each delivery, sorted."""
        return sorted((node, message_id) for _, node, _, message_id, *_ in self.notes.of("delivered"))

    def published(self) -> list[bytes]:
        return [message_id for _, _, _, message_id, _ in self.notes.of("published")]

    def ring(self, topic: str | None = TOPIC) -> None:
        """Each node dials the next at 0.5 s and subscribes at 1 s."""
        peers = len(self.rung.nodes)
        for node in range(peers):
            self.at(0.5, self.rung.connect, node, (node + 1) % peers)
            if topic is not None:
                self.at(1, self.rung.subscribe, node, topic)


# Lives and connections


@RUNGS
def test_nodes_start_connect_and_deliver(rung: str) -> None:
    stage = Stage(rung)
    stage.ring()
    connected, mesh = stage.see(4, stage.rung.connected, 0), stage.see(4, stage.rung.mesh, 0, TOPIC)
    nothing = stage.see(4, stage.rung.mesh, 0, "unknown")
    stage.at(4, stage.rung.publish, 2, TOPIC, b"message")
    stage.run(6)
    assert connected == mesh == [[1, 3]]
    assert nothing == [[]]
    (message_id,) = stage.published()
    assert stage.delivered() == [(node, message_id) for node in (0, 1, 3)]
    assert [at for at, *_ in stage.notes.of("published")] == [4]
    assert max(at for at, *_ in stage.notes.of("delivered")) == pytest.approx(4.1)
    assert stage.notes.of("failed") == []
    assert {node for _, node, _ in stage.notes.of("joined")} == {0, 1, 2, 3}
    assert stage.heap.now == 6


@RUNGS
def test_a_crash_is_seen_by_the_others_and_a_restart_brings_everything_back(rung: str) -> None:
    stage = Stage(rung)
    stage.ring()
    stage.at(4, stage.rung.crash, 1)
    stage.at(4, stage.rung.crash, 1)  # it is gone already
    during = stage.see(5, stage.rung.alive, 1)
    stage.at(5, stage.rung.publish, 1, TOPIC, b"never sent")
    stage.at(6, stage.rung.start, 1)
    stage.at(6, stage.rung.start, 1)  # it runs already
    stage.at(12, stage.rung.publish, 1, TOPIC, b"message")
    after = stage.see(12, stage.rung.connected, 1)
    stage.run(14)
    assert during == [False]
    assert after == [[0, 2]]
    lost = [(at, node, other) for at, node, other in stage.notes.of("disconnected") if at < 14]
    assert sorted(lost) == [(4, 1, 0), (4, 1, 2), (pytest.approx(4.05), 0, 1), (pytest.approx(4.05), 2, 1)]
    assert stage.notes.of("crashed") == [(4, 1)]
    assert [(at, node) for at, node in stage.notes.of("started") if at] == [(6, 1)]
    (message_id,) = stage.published()
    assert stage.delivered() == [(node, message_id) for node in (0, 2, 3)]  # subscribed without being told
    assert stage.notes.of("failed") == []


@RUNGS
def test_when_the_power_fails_the_others_find_out_within_40_s(rung: str) -> None:
    stage = Stage(rung, peers=3)
    stage.ring()
    stage.at(4, stage.rung.crash, 1, silently=True)
    stage.run(60)
    lost = {node: at for at, node, other in stage.notes.of("disconnected") if other == 1 and at < 60}
    assert lost.keys() == {0, 2}
    assert all(5 < at <= 44.1 for at in lost.values())


@RUNGS
def test_a_node_that_comes_back_before_anybody_noticed_is_found_out_and_dialed_again(rung: str) -> None:
    stage = Stage(rung, peers=3)
    stage.ring()
    stage.at(4, stage.rung.crash, 1, silently=True)
    stage.at(5, stage.rung.start, 1)
    after = stage.see(60, stage.rung.connected, 1)
    stage.run(61)
    assert after == [[0, 2]]
    assert stage.notes.of("failed") == []


@RUNGS
def test_a_reset_connection_is_dialed_again(rung: str) -> None:
    stage = Stage(rung)
    stage.ring()
    stage.at(4, stage.rung.reset, 1, 0)
    stage.at(4, stage.rung.reset, 0, 2)  # there is none
    between, after = stage.see(4.01, stage.rung.connected, 0), stage.see(20, stage.rung.connected, 0)
    stage.run(20)
    assert between == [[3]]
    assert after == [[1, 3]]


@RUNGS
def test_a_partition_longer_than_the_keepalive_parts_the_nodes_and_heals(rung: str) -> None:
    stage = Stage(rung)
    stage.ring()
    faults: list[int] = []
    stage.at(4, lambda: faults.append(stage.network.begin_partition([0, 1])))
    stage.at(64, lambda: stage.network.end(faults[0]))
    during, after = stage.see(60, stage.rung.connected, 0), stage.see(180, stage.rung.connected, 0)
    stage.at(180, stage.rung.publish, 0, TOPIC, b"healed")
    stage.run(182)
    assert during == [[1]]
    assert after == [[1, 3]]
    assert len(stage.delivered()) == 3
    assert stage.notes.of("failed") == []


@RUNGS
def test_who_leaves_a_topic_gets_nothing_any_more_also_after_a_restart(rung: str) -> None:
    stage = Stage(rung)
    stage.ring()
    for node in (2, 3):
        stage.at(4, stage.rung.unsubscribe, node, TOPIC)
    stage.at(5, stage.rung.crash, 3)
    stage.at(6, stage.rung.unsubscribe, 3, "never joined")
    stage.at(7, stage.rung.start, 3)
    stage.at(14, stage.rung.publish, 0, TOPIC, b"message")
    stage.run(16)
    assert [node for node, _ in stage.delivered()] == [1]
    assert [node for _, node, _ in stage.notes.of("left")] == [2, 3]


@RUNGS
def test_a_node_that_is_told_something_while_it_starts_does_it_then(rung: str) -> None:
    stage = Stage(rung, dht=[{}])

    def tell() -> None:
        stage.rung.start(0)
        stage.rung.subscribe(0, TOPIC)
        stage.rung.connect(0, 1)
        stage.rung.find(0, 1, 7)

    stage.at(1, stage.rung.crash, 0)
    stage.at(2, tell)
    connected = stage.see(3, stage.rung.connected, 0)
    stage.run(5)
    assert connected == [[1]]
    assert [(at, node) for at, node, _ in stage.notes.of("joined")] == [(2, 0)]
    assert [(node, operation) for _, node, operation, *_ in stage.notes.of("looked_up")] == [(0, 7)]


@RUNGS
@pytest.mark.parametrize("keep", [True, False])
def test_only_a_disk_that_is_kept_survives_a_crash(rung: str, keep: bool) -> None:
    stage = Stage(rung, peers=1)

    def write() -> None:
        stage.rung.disk(0).mount().write_durably("file", b"kept")

    stage.at(1, write)
    stage.at(2, stage.rung.crash, 0, keep_disk=keep)
    stage.at(3, stage.rung.start, 0)
    found = stage.see(4, lambda: [name for name, _ in stage.rung.disk(0).mount().entries()])
    stage.run(5)
    assert found == [["file"] if keep else []]


def test_a_node_whose_disk_fails_while_it_starts_says_so_and_tries_again() -> None:
    stage = Stage("light", peers=4, task=[{"members": 4}])
    stage.rung.disk(1).error_share = 1.0
    stage.at(1, setattr, stage.rung.disk(1), "error_share", 0.0)
    running = stage.see(1, lambda: [stage.rung.alive(node) for node in range(4)])
    after = stage.see(RESTART + 1, lambda: [stage.rung.alive(node) for node in range(4)])
    stage.run(RESTART + 2)
    ((at, node, reason),) = stage.notes.of("waiting")
    assert (at, node) == (0, 1)
    assert "cannot use the folder" in reason
    assert running == [[True, False, True, True]]
    assert after == [[True] * 4]
    assert stage.notes.of("failed") == []


def test_a_node_cannot_start_outside_of_a_run() -> None:
    stage = Stage("light")
    with pytest.raises(SimulationError, match="while the simulation runs"):
        stage.rung.start(0)


def test_an_error_of_whoever_drives_the_run_leaves_it() -> None:
    stage = Stage("light")
    stage.at(1, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stage.run(5)


# Bugs


def fails(*_: object) -> bool:
    raise ZeroDivisionError("a bug")


async def fails_at_once(*_: object) -> None:
    raise ZeroDivisionError("a bug")


@RUNGS
def test_a_bug_in_a_task_ends_its_node_and_the_others_go_on(rung: str) -> None:
    stage = Stage(rung)
    stage.ring()

    def break_it() -> None:
        life = stage.rung.nodes[1].life
        assert life is not None
        life.start(fails_at_once)

    stage.at(4, break_it)
    alive = stage.see(5, stage.rung.alive, 1)
    stage.at(5, stage.rung.publish, 2, TOPIC, b"message")
    stage.at(6, stage.rung.start, 1)
    again = stage.see(12, stage.rung.connected, 1)
    stage.run(13)
    ((at, node, error),) = stage.notes.of("failed")
    assert (at, node, repr(error)) == (4, 1, "ZeroDivisionError('a bug')")
    assert (alive, again) == ([False], [[0, 2]])
    assert {node for node, _ in stage.delivered()} >= {0, 3}  # and 1, when it hears of it again


@RUNGS
def test_a_bug_in_what_gets_a_message_is_reported(rung: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(rung)
    stage.ring()

    def break_it() -> None:
        gossip = stage.rung.nodes[1].gossip
        assert gossip is not None
        gossip.pubsub.observers.append(fails)

    stage.at(4, break_it)
    stage.run(8)
    ((_, node, error),) = stage.notes.of("failed")
    assert node == 1
    assert "ZeroDivisionError('a bug')" in repr(error)


@RUNGS
def test_a_bug_in_a_validator_drops_its_message_and_is_reported_all_the_same(rung: str) -> None:
    stage = Stage(rung)
    stage.ring()

    def break_it() -> None:
        gossip = stage.rung.nodes[1].gossip
        assert gossip is not None
        gossip.pubsub.add_validator(TOPIC, fails)

    stage.at(4, break_it)
    stage.at(5, stage.rung.publish, 2, TOPIC, b"message")
    alive = stage.see(7, stage.rung.alive, 1)
    stage.run(7)
    failed = {(node, repr(error)) for _, node, error in stage.notes.of("failed")}
    assert failed == {(NOBODY, "ZeroDivisionError('a bug')")}
    assert alive == [True]
    assert [node for node, _ in stage.delivered()] == [0, 3]


@RUNGS
def test_a_bug_in_a_handler_costs_its_stream_and_is_reported_all_the_same(rung: str) -> None:
    stage = Stage(rung, peers=2)
    stage.ring(topic=None)

    async def fail(stream: Stream) -> None:
        raise ZeroDivisionError("a bug")

    async def call(node: Node) -> None:
        assert node.life is not None
        assert node.life._host is not None
        stream = await node.life._host.open_stream(stage.rung.peers[0], ["/broken"])
        with pytest.raises(Exception, match="reset"):
            await stream.receive_some()

    def plan() -> None:
        life, other = stage.rung.nodes[0].life, stage.rung.nodes[1].life
        assert life is not None
        assert other is not None
        assert life._host is not None
        life._host.handle("/broken", fail)
        other.start(call, stage.rung.nodes[1])

    stage.at(2, plan)
    connected = stage.see(5, stage.rung.connected, 0)
    stage.run(5)
    ((_, node, error),) = stage.notes.of("failed")
    assert (node, repr(error)) == (NOBODY, "ZeroDivisionError('a bug')")
    assert connected == [[1]]


@pytest.mark.parametrize(
    ("room", "level", "error", "counts"),
    [
        ("p2p.swarm", logging.ERROR, ZeroDivisionError(), True),
        ("federated.driver", logging.WARNING, ZeroDivisionError(), True),
        ("p2p.swarm", logging.WARNING, RemoteProtocolError("theirs"), False),
        ("p2p.swarm", logging.INFO, ZeroDivisionError(), False),
        ("p2p.swarm", logging.ERROR, None, False),
        ("others", logging.ERROR, ZeroDivisionError(), False),
    ],
)
def test_only_what_is_logged_with_a_bug_s_traceback_counts(
    room: str, level: int, error: Exception | None, counts: bool
) -> None:
    stage = Stage("light", peers=1)
    stage.at(1, logging.getLogger(room).log, level, "something happened", exc_info=error)
    stage.run(2)
    expected = [(1, NOBODY, error)] if counts else []
    assert stage.notes.of("failed") == expected
    logging.getLogger(room).log(level, "behind the run", exc_info=error)
    assert stage.notes.of("failed") == expected


# What honest nodes refuse


@RUNGS
def test_what_is_refused_is_counted(rung: str) -> None:
    outcome = simulate(
        scenario(
            rung=rung,
            peers=6,
            gossip=[{"rate": 10, "seconds": 5}],
            adversaries=[{"role": "forger", "who": {"nodes": [2]}}],
            checks={"delivery": None},
        ),
        seed=1,
    )
    assert {check.name: check.seen for check in outcome.checks if not check.holds} == {}
    assert (outcome.figures["rejected_messages"] or 0) > 0


# The DHT


@RUNGS
def test_values_are_found_by_others_and_not_where_there_are_none(rung: str) -> None:
    stage = Stage(rung, peers=6, dht=[{}])
    stage.ring(topic=None)
    key = content_key(b"value")
    stage.at(5, stage.rung.put, 0, key, b"value", 1)
    stage.at(10, stage.rung.get, 3, key, 2)
    stage.at(10, stage.rung.get, 3, content_key(b"nothing"), 3)
    stage.at(10, stage.rung.find, 4, 1, 4)
    stage.run(30)
    ended = {each[2]: each[3:] for each in stage.notes.of("looked_up")}
    kinds = {operation: (kind, ok) for operation, (kind, ok, *_) in ended.items()}
    assert kinds == {1: ("put", True), 2: ("get", True), 3: ("get", False), 4: ("find", True)}
    assert ended[2][-1] == b"value"
    assert stage.rung.peers[1].raw in ended[4][-1]
    assert ended[2][2] > 0


def test_an_operation_of_a_dht_that_is_not_there_is_reported() -> None:
    stage = Stage("light")
    stage.at(1, stage.rung.find, 0, 1, 1)
    stage.run(2)
    ((_, node, error),) = stage.notes.of("failed")
    assert node == 0
    assert "this scenario has no DHT" in str(error)


@RUNGS
def test_a_dht_under_faults_answers_all_the_same(rung: str) -> None:
    outcome = simulate(
        scenario(
            rung=rung,
            peers=10,
            settle=10,
            dht=[{"puts": 1, "gets": 1, "finds": 1, "seconds": 15}],
            faults=[
                {"kind": "crash", "at": 8, "seconds": 4, "who": {"count": 2}},
                {"kind": "crash", "at": 9, "seconds": 5, "who": {"count": 1}, "silently": True},
                {"kind": "partition", "at": 14, "seconds": 2, "who": {"count": 2}},
            ],
        ),
        seed=3,
    )
    assert {check.name: check.seen for check in outcome.checks if not check.holds} == {}


def test_discovery_finds_the_others_from_a_few_bootstrap_nodes() -> None:
    stage = Stage("light", peers=6, topology={"kind": "join", "bootstrap": 1, "degree": 3})
    connected = stage.see(60, lambda: [len(stage.rung.connected(node)) for node in range(6)])
    stage.at(10, stage.rung.connect, 5, 0)
    stage.run(60)
    assert all(count >= 1 for count in connected[0])
    assert stage.notes.of("failed") == []


async def test_a_look_up_that_fails_has_not_ended_well(autojump_clock: trio.testing.MockClock) -> None:
    class Failing:
        async def look_up(self, key: bytes) -> object:
            raise ConnectionLost("there is nobody")

    notes = Notes(EventHeap())
    await Dht(3, cast(Kad, Failing()), notes).find(7, b"key")
    assert notes.of("looked_up") == [(0, 3, 7, "find", False, 0.0, 0, b"")]


# Training


@RUNGS
def test_members_that_train_through_a_crash_end_with_equal_models(rung: str) -> None:
    outcome = simulate(
        scenario(
            rung=rung,
            peers=4,
            settle=5,
            task=[{"members": 4, "rounds": 3, "train_seconds": 1}],
            faults=[{"kind": "crash", "at": 8, "seconds": 3, "who": {"nodes": [1]}}],
        ),
        seed=1,
    )
    assert {check.name: check.seen for check in outcome.checks if not check.holds} == {}
    assert outcome.figures["running_at_end"] == 4


def test_a_member_whose_disk_is_full_waits_and_goes_on() -> None:
    outcome = simulate(
        scenario(
            rung="light",
            peers=4,
            task=[{"members": 4, "rounds": 2, "train_seconds": 1}],
            faults=[{"kind": "disk-full", "at": 5, "seconds": 4, "who": {"nodes": [1]}}],
        ),
        seed=1,
    )
    assert {check.name: check.seen for check in outcome.checks if not check.holds} == {}
    assert outcome.recorder.waits != {}


def test_a_member_that_cannot_take_part_says_why_and_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DataError("there is no data")

    monkeypatch.setattr("sim.live.training.open_task", refuse)
    outcome = simulate(
        scenario(rung="light", peers=4, task=[{"members": 4, "rounds": 1}], checks={"rounds": False}), seed=1
    )
    assert outcome.recorder.waits == {"there is no data": 4}
    assert outcome.figures["running_at_end"] == 4
    assert len(outcome.recorder.violations) == 0


@RUNGS
def test_what_nodes_think_of_others_is_seen_and_told(rung: str) -> None:
    forger = Adversary(role="forger", who=Selection(nodes=(3,)))
    stage = Stage(rung, adversaries={3: forger})
    stage.ring()
    scores, nothing = stage.see(6, stage.rung.scores, 0), stage.see(0, stage.rung.scores, 1)
    stage.run(6)
    assert nothing == [{}]
    assert scores[0][3] < -80
    assert scores[0][1] >= 0
    assert sorted({call[1:3] for call in stage.notes.of("graylisted")}) == [(0, 3), (2, 3)]


def test_nodes_that_share_an_address_lose_score_and_are_told_the_rate() -> None:
    colocated = Adversary(role="eclipser", who=Selection(nodes=(1,)), addresses=1)
    stage = Stage("light", peers=12, adversaries=dict.fromkeys(range(1, 11), colocated))
    for node in range(1, 12):
        stage.at(0.5, stage.rung.connect, 0, node)
    for node in range(12):
        stage.at(1, stage.rung.subscribe, node, TOPIC, 5.0)
    scores = stage.see(5, stage.rung.scores, 0)
    stage.run(5)
    assert [scores[0][node] for node in range(1, 11)] == [-20.0] * 10
    assert scores[0][11] >= 0
    assert str(stage.rung.fabric.address(4)) == "/ip4/11.0.0.0/tcp/4006"
