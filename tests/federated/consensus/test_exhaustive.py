"""All that four members can do in one view, and that this search sees what it should."""

from __future__ import annotations

from random import Random

import pytest

from tests.search import exhaustive
from tests.search.exhaustive import WALK, Model, places
from tests.search.mutants import MUTANTS
from tests.search.parliament import Violation
from tests.search.planting import planted


@pytest.mark.parametrize("place", places(1))
def test_no_order_of_events_in_one_view_breaks_a_rule(place: int) -> None:
    found = Model(1, place).explore()
    assert found.states > 500
    walked = Model(1, place, single_votes=True)
    said = {words for seed in range(40) for words in walked.wander(Random(seed), WALK)}
    assert len(said) > 30
    assert said <= found.said  # votes one by one lead nowhere else


@pytest.mark.parametrize("name", ["finalizes after it nullified", "the journal is not restored"])
def test_a_rule_removed_is_found_in_one_view(name: str) -> None:
    [mutant] = [mutant for mutant in MUTANTS if mutant.name == name]
    with planted(mutant.edits), pytest.raises(Violation):
        for place in places(1):
            Model(1, place).explore()


def test_two_liars_of_four_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exhaustive, "LIAR_FINDS", 1)  # what a quorum lacks, two liars have
    with pytest.raises(Violation):
        Model(1, 1).explore()
