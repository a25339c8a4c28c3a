"""The attack table over real sockets, small: a process for each member, one of which lies."""

from __future__ import annotations

import pytest

from tests.benchmarks.attacks import sockets
from tests.benchmarks.attacks.task import Case

SMALL = Case("FLTrust", "sign", 1, clients=4, byzantine=1, rounds=3)


@pytest.mark.parametrize("attack", ["sign", "alie", "label-flip", "tailored"])
def test_processes_certify_rounds_with_a_liar_among_them(attack: str) -> None:
    assert sockets.run(SMALL._replace(attack=attack))[-1] > 50


def test_the_liar_lies() -> None:
    assert sockets.run(SMALL._replace(rule="mean"))[-1] < 30
