"""One seed is one run on every version of Python and on every machine."""

from __future__ import annotations

import sys

from tests.sim import golden


def test_the_runs_are_those_of_the_golden_file() -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    assert golden.hashes() == golden.read(), (
        f"on Python {version} the simulation runs otherwise than tests/sim/golden.json says. If you changed "
        "what peers do or when, and all versions agree, write it anew: python -m tests.sim.golden"
    )
