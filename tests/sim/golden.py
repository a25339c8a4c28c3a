"""Trace hashes that every version of Python must come to: python -m tests.sim.golden writes them anew.

They change whenever the peers, the network or the director do something else or at another time. That is
no fault by itself: look whether the change was meant, then write them anew. What may never happen is that
two versions of Python, two machines or two processes come to different ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sim.run import simulate
from sim.scenario.model import Scenario

FILE = Path(__file__).with_name("golden.json")
SEED = 7
PARTS: dict[str, Any] = {
    "name": "golden",
    "peers": 8,
    "settle": 5,
    "network": {"latency": {"kind": "uniform", "ms": 10, "max_ms": 90}, "loss": 0.01},
    "gossip": [{"rate": 8, "seconds": 5}],
    "dht": [{"seconds": 5}],
    "faults": [
        {"kind": "crash", "at": 6, "seconds": 2, "who": {"count": 1}},
        {"kind": "partition", "at": 7, "seconds": 2, "who": {"count": 2}},
    ],
}
RUNGS = ("light", "cores")  # `full` depends on the versions of the libraries that encrypt


def hashes() -> dict[str, str]:
    """The trace hash of the scenario in each rung."""
    return {
        rung: simulate(Scenario.model_validate({**PARTS, "rung": rung}), SEED).trace_hash for rung in RUNGS
    }


def read() -> dict[str, str]:
    """What the file says."""
    known: dict[str, str] = json.loads(FILE.read_text(encoding="utf-8"))
    return known


if __name__ == "__main__":
    FILE.write_text(json.dumps(hashes(), indent=2) + "\n", encoding="utf-8")
