"""The searches on a few seeds: what they find, and that they find nothing in the code as it is.

The long ones are run by hand and by `tox -e search`: `python -m tests.search.byzantine`, `.mutants`,
`.exhaustive`, `.crashes`.
"""

from __future__ import annotations

import json

import pytest

from federated.rounds.ballots import Ballots
from tests.search import byzantine
from tests.search.assemblies import search_assembly
from tests.search.byzantine import distribution, search_seed
from tests.search.mutants import MUTANTS, hunt
from tests.search.parliament import Kind, draw_plan
from tests.search.planting import Edit, planted


def test_no_seed_breaks_a_rule() -> None:
    outcomes = [search_seed(seed) for seed in range(60)]
    assert [outcome for outcome in outcomes if outcome.broken] == []
    assert sum(outcome.after is not None for outcome in outcomes) > 12


def test_no_cheat_gets_into_a_block() -> None:
    assert [search_assembly(seed).broken for seed in range(6)] == [None] * 6


def test_plans_have_every_kind_of_liar_and_never_too_many() -> None:
    plans = [draw_plan(seed) for seed in range(300)]
    assert {kind for plan in plans for kind in plan.liars.values()} == {*Kind} - {Kind.HONEST}
    assert all(len(plan.liars) <= (plan.count - 1) // 3 for plan in plans)
    assert {plan.count for plan in plans} >= {4, 7, 10, 13, 16}


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("finalizes after it nullified", 2),
        ("notarizations are not written", 172),
        ("a copied commitment is as good as one's own", 7),
    ],
)
def test_a_rule_removed_is_found_by_its_seed(name: str, seed: int) -> None:
    [mutant] = [mutant for mutant in MUTANTS if mutant.name == name]
    found = hunt(mutant, seeds=20, first=seed)
    assert found is not None
    assert mutant.search(found.seed).broken is None  # without the change it is nothing


def test_a_planted_change_ends_with_its_block() -> None:
    edit = Edit(module="federated.rounds.ballots", good="return False if", bad="")
    with pytest.raises(AssertionError, match="has changed"), planted([edit]):
        pass
    good = "return 0 if self.parent is None else self.parent.view"
    edit = Edit(module="federated.rounds.ballots", good=good, bad="return 7")
    before = Ballots.parent_view
    with planted([edit]):
        assert before.fget is not None
        assert before.fget(None) == 7
    with pytest.raises(AttributeError):
        before.fget(None)


def test_a_broken_seed_ends_with_a_command_that_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    [mutant] = [mutant for mutant in MUTANTS if mutant.name == "a quorum is smaller"]
    with planted(mutant.edits):
        assert byzantine.main(["--seeds", "1", "--workers", "1", "--json"]) == 1
        report = json.loads(capsys.readouterr().out)
        [broken] = report["broken"]
        assert broken["repeat"] == "python -m tests.search.byzantine --first 0 --seeds 1"
        assert byzantine.main(["--seeds", "1", "--workers", "1"]) == 1
        assert f"repeat with: {broken['repeat']}\n" in capsys.readouterr().out
    assert byzantine.main(["--seeds", "1", "--workers", "1"]) == 0


def test_the_distribution_counts_who_is_back_in_time() -> None:
    assert distribution([]) == {}
    figures = distribution([0.5] * 98 + [3.0, 4.0])
    assert (figures["p50"], figures["p99"], figures["max"]) == (0.5, 3.0, 4.0)
    assert (figures["within"], figures["seeds"]) == (0.98, 100)
