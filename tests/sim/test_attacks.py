"""The attacks that ship, in small: honest peers get everything, and the scores are why."""

from __future__ import annotations

import pytest

from sim.run import Outcome, simulate
from sim.scenario.library import load, with_changes
from sim.scenario.model import Scenario


def attacked(name: str, *, rate_known: bool = True) -> Outcome:
    """Half a minute of the scenario, with a few peers."""
    scenario = with_changes(load(name), peers=30, rung="cores")
    loads = tuple(
        each.model_copy(update={"seconds": 25.0, "rate_known": rate_known}) for each in scenario.gossip
    )
    checks = scenario.checks.model_copy(update={"p99_ms": None, "eclipse_seconds": 22.0})
    changed = scenario.model_copy(update={"gossip": loads, "checks": checks, "settle": 5.0})
    return simulate(Scenario.model_validate(changed.model_dump()), seed=1)


@pytest.mark.parametrize("name", ["attack-cold-boot", "attack-eclipse-publishers"])
def test_honest_peers_get_everything_and_their_meshes_back(name: str) -> None:
    outcome = attacked(name)
    assert outcome.holds, [check for check in outcome.checks if not check.holds]
    assert min(outcome.recorder.scores.adversaries.low) < 0
    assert min(outcome.recorder.scores.honest.low) > -10.0


def test_without_scores_for_what_peers_withhold_the_meshes_stay_lost() -> None:
    outcome = attacked("attack-cold-boot", rate_known=False)
    assert outcome.recorder.longest_eclipse > 22.0


def test_slow_processors_are_not_taken_for_enemies() -> None:
    outcome = simulate(with_changes(load("slow-processor"), peers=12, rung="cores"), seed=1)
    assert min(outcome.recorder.scores.honest.low) > -10.0
    assert outcome.holds, [check for check in outcome.checks if not check.holds]
