"""The outcome of a run that never was, with something of everything in it."""

from __future__ import annotations

import random
from typing import Any

from sim.director import Interval
from sim.record import Recorder, figures_of, hash_of, judge, results_of
from sim.run import Outcome
from sim.scenario.model import Crash, DhtLoad, Selection, TaskLoad
from tests.sim.record.support import TOPIC, Still, finish_round, look_up, recorder, rung


def quiet_outcome(peers: int = 4, **scenario: Any) -> Outcome:
    """Nodes that do nothing, and are not connected."""
    made = recorder(peers, **{"gossip": (), "name": "quiet", **scenario})
    made.heap.now = 20.0
    still = Still(dict.fromkeys(range(peers), ()))
    still.sent_by = still.received_by = [0] * peers
    made.finish(rung(still), still)
    return _outcome(made, [])


def busy_outcome(peers: int = 40, seed: int = 1) -> Outcome:
    """Gossip, a DHT, training, a node that is down and one that is not honest, and one failed check."""
    rng = random.Random(seed)
    trouble = [
        Interval(begin=12.0, end=17.0, what="crash of 1 node"),
        Interval(begin=15.0, end=19.0, what="<reset>"),
        Interval(begin=30.0, end=99.0, what="later"),
    ]
    made = recorder(
        peers,
        honest=lambda node: node != 1,
        calm=lambda begin, end: end < 12 or begin > 19,
        name="busy",
        description='Everything at once & "quoted" <b>text</b>',
        dht=(DhtLoad(),),
        task=(TaskLoad(members=5, rounds=3),),
        faults=(Crash(at=12.0, who=Selection(nodes=(2,))),),
    )
    links = {node: sorted({(node + step) % peers for step in (1, 2, 5, -1, -2, -5)}) for node in range(peers)}
    still = Still(links, {node: others[:4] for node, others in links.items()})
    for second in range(36):
        made.heap.now = float(second)
        if second == 12:
            made.crashed(2)
            links = {
                node: [other for other in others if other != 2] for node, others in links.items() if node != 2
            }
            still = Still(links, {node: others[:4] for node, others in links.items()})
        opinions = {other: min(second / 10, 3.0) for other in range(2, 6)} | {1: -second / 2}
        made.sample(rung(Still(links, {node: others[:4] for node, others in links.items()}, {0: opinions})))
        if 5 <= second < 25:
            _gossip(made, rng, peers, float(second))
        if 5 <= second < 25:
            look_up(made, 0, 3 * second, kind="find", hops=rng.randint(2, 9), ok=True)
            look_up(made, 3, 3 * second + 1, kind="get", hops=rng.randint(1, 6), ok=second != 9)
            look_up(made, 3, 3 * second + 2, kind="put", hops=rng.randint(4, 12), ok=True)
    for node in range(3, 8):
        made.entered(node, "digits")
        for number in range(3):
            made.heap.now = 20.0 + 5 * number + node / 10
            accuracy = 0.5 + 0.15 * number + rng.uniform(-0.02, 0.02)
            finish_round(made, node, number, measured={"accuracy": accuracy, "loss": 1.0 - accuracy})
    made.heap.now = 36.0
    still.sent_by = [rng.randint(10_000, 90_000) for _ in range(peers)]
    still.received_by = [rng.randint(20_000, 60_000) for _ in range(peers)]
    made.finish(rung(still), still)
    return _outcome(made, trouble)


def _gossip(made: Recorder, rng: random.Random, peers: int, second: float) -> None:
    for number in range(3):
        message_id = f"{second} {number}".encode()
        made.heap.now = second + number / 4
        made.published(3, TOPIC, message_id, 200)
        published, had = made.heap.now, [3]
        for node in range(peers):
            if node not in (2, 3):
                made.heap.now = published + rng.lognormvariate(-2.5, 0.5)
                made.delivered(node, TOPIC, message_id, 3, rng.choice(had))
                made.duplicated(node, rng.randint(1, 4))
                had.append(node)
    made.heap.now = second


def _outcome(made: Recorder, trouble: list[Interval]) -> Outcome:
    return Outcome(
        scenario=made.scenario,
        seed=7,
        peers=made.scenario.peers,
        rung=made.scenario.rung,
        virtual_seconds=made.heap.now,
        events=12_345,
        trace_hash=made.trace_hash,
        results_hash=hash_of(results_of(made)),
        figures=figures_of(made),
        checks=judge(made),
        recorder=made,
        trouble=trouble,
    )
