"""A task that nobody looks after, for a hundred rounds; for more of them there is the program."""

from __future__ import annotations

import pytest

from tests.search.endurance import SPAN, simulated

pytestmark = pytest.mark.timeout(600)


def test_members_that_are_killed_in_every_round_certify_all_of_them() -> None:
    span = simulated(1)
    assert span.ended
    assert (span.certified, span.skipped) == (SPAN, 0)
    assert span.kills > SPAN // 2
