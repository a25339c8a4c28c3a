"""The attack table over real sockets, small: a process for each member, one of which lies."""

from __future__ import annotations

import pytest

from tests.benchmarks.attacks import sockets
from tests.benchmarks.attacks.task import Case


@pytest.mark.parametrize("attack", ["alie", "label-flip", "tailored"])
def test_processes_certify_rounds_with_a_liar_among_them(attack: str) -> None:
    found = sockets.run(Case("FLTrust", attack, 1, clients=4, byzantine=1, rounds=3))
    assert len(found) == 3
    assert found[-1] > 50
