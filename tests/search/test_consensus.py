"""The searches of the consensus, long enough to mean something and short enough for a matrix of machines."""

from __future__ import annotations

import pytest
import trio

from tests.search import byzantine
from tests.search.assemblies import search_assembly
from tests.search.crashes import run_virtually
from tests.search.exhaustive import Model
from tests.search.mutants import MUTANTS, WITHIN, Mutant, hunt
from tests.search.parliament import Violation
from tests.search.planting import planted
from tests.search.processes import kill_at

pytestmark = pytest.mark.timeout(900)


def test_no_seed_of_an_agreement_breaks_a_rule() -> None:
    assert byzantine.main(["--seeds", "3000", "--first", "1000000", "--workers", "1"]) == 0


def test_no_seed_of_whole_rounds_breaks_a_rule() -> None:
    outcomes = [search_assembly(seed) for seed in range(1_000_000, 1_000_150)]
    assert [outcome for outcome in outcomes if outcome.broken] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_rule_removed_is_found(mutant: Mutant) -> None:
    found = hunt(mutant)
    assert found is not None, f"lives for {WITHIN} seeds"
    assert mutant.search(found.seed).broken is None


def test_a_rule_removed_is_found_in_two_views() -> None:
    name = "a block other than the notarized one gets votes"
    [mutant] = [mutant for mutant in MUTANTS if mutant.name == name]
    with planted(mutant.edits), pytest.raises(Violation, match="agreement"):
        Model(2, 2).explore()


def test_no_order_of_events_in_two_views_breaks_a_rule() -> None:
    assert Model(2, 3).explore().states > 900_000


@pytest.mark.parametrize("first", range(4))
def test_a_member_that_is_killed_at_any_moment_contradicts_nothing(first: int) -> None:
    for moment in range(first, len(run_virtually(()).moments), 4):
        assert run_virtually([moment, moment % 23], seed=moment).died


@pytest.mark.parametrize("moment", [4, 11, 19, 26])
def test_a_process_that_is_killed_at_a_moment_contradicts_nothing(moment: int) -> None:
    run = trio.run(kill_at, moment)
    assert run.died
    assert run.votes > 0
