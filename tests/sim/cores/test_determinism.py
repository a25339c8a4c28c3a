"""One seed is one run, whatever the process."""

from __future__ import annotations

import os
import subprocess
import sys

from sim.run import simulate
from sim.scenario.model import Scenario

PARTS = {
    "name": "test",
    "rung": "cores",
    "peers": 20,
    "settle": 5,
    "network": {"jitter": 0, "quantum_ms": 10},
    "gossip": [{"seconds": 5}],
    "dht": [{"seconds": 5}],
    "task": [{"members": 4, "rounds": 1}],
    "faults": [
        {"kind": "crash", "at": 6, "seconds": 3, "who": {"share": 0.2}},
        {"kind": "reset", "at": 8, "who": {"share": 0.3}},
    ],
}
PROGRAM = """
from sim.run import simulate
from sim.scenario.model import Scenario
print(simulate(Scenario.model_validate({parts!r}), {seed}).trace_hash)
"""


def test_the_same_seed_gives_the_same_trace_and_another_another() -> None:
    scenario = Scenario.model_validate(PARTS)
    one, again, other = (simulate(scenario, seed).trace_hash for seed in (1, 1, 2))
    assert one == again != other


def test_the_hash_seed_of_the_process_changes_nothing() -> None:
    """Times are quantised, so that many events tie: what iterates a set comes in another order."""
    hashes = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        program = PROGRAM.format(parts=PARTS, seed=3)
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        hashes.add(done.stdout)
    assert len(hashes) == 1
