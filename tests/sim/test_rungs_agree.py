"""The same scenario comes to the same on every rung: who got what, what was looked up, every model."""

from __future__ import annotations

from typing import Any

import pytest

from sim.run import Outcome, simulate
from sim.scenario.model import Scenario

RUNGS = ("cores", "light", "full")
LATENCY = {"kind": "constant", "ms": 30}
GOSSIP = {"rate": 5, "seconds": 4, "size": 300}


def outcome(rung: str, **parts: Any) -> Outcome:
    fields = {"name": "agreement", "rung": rung, "peers": 8, "settle": 5, **parts}
    return simulate(Scenario.model_validate(fields), seed=3)


@pytest.mark.parametrize(
    "parts",
    [
        {"gossip": [GOSSIP]},
        {"gossip": [GOSSIP], "network": {"latency": LATENCY, "jitter": 0, "quantum_ms": 10}},
        {
            "gossip": [{**GOSSIP, "seconds": 10}],
            "topology": {"kind": "full"},
            "faults": [
                {"kind": "partition", "at": 7, "seconds": 3, "who": {"share": 0.5}},
                {"kind": "weather", "at": 6, "seconds": 6, "who": {"share": 0.5}, "loss": 0.2},
                {"kind": "reset", "at": 13, "who": {"count": 1}},
            ],
            "settle": 20,
        },
        {"dht": [{"puts": 1, "gets": 2, "finds": 2, "seconds": 12}]},
        {"topology": {"kind": "join", "bootstrap": 2}, "gossip": [{**GOSSIP, "start": 15}]},
        {"task": [{"members": 4, "rounds": 3, "train_seconds": 0.5}], "topology": {"kind": "full"}},
    ],
    ids=["gossip", "ties", "faults", "dht", "join", "training"],
)
def test_a_scenario_comes_to_the_same_on_every_rung(parts):
    outcomes = [outcome(rung, **parts) for rung in RUNGS]
    for each in outcomes:
        assert each.holds, [check for check in each.checks if not check.holds]
    assert len({each.results_hash for each in outcomes}) == 1
    assert len({each.trace_hash for each in outcomes}) == len(RUNGS)
