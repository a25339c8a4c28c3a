"""When a scenario's work is over, and how long its tasks may take."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.scenario.model import Scenario, TaskLoad

PHASES = 8  # of a round, from the training to the vote
TASK_GRACE = 60.0  # seconds beyond what a task's deadlines allow, for crashes and catching up


def task_limit(load: TaskLoad) -> float:
    """The virtual second after which nobody waits for the task any more."""
    round_limit = load.train_deadline + PHASES * load.phase_deadline
    return load.start + load.rounds * round_limit + TASK_GRACE


def work_end(scenario: Scenario) -> float:
    """The virtual second at which the last load is over, whatever a task takes; 0 without any work."""
    return max([0.0, *_ends(scenario), *(task_limit(load) for load in scenario.task)])


def planned_end(scenario: Scenario) -> float:
    """The virtual second at which the run is over, if its tasks are by then."""
    starts = [load.start for load in scenario.task]
    faults = [fault.at + fault.seconds for fault in scenario.faults]
    return max([scenario.topology.over, *_ends(scenario), *starts, *faults]) + scenario.settle


def _ends(scenario: Scenario) -> list[float]:
    gossip = [load.start + load.seconds for load in scenario.gossip]
    dht = [load.start + load.seconds for load in scenario.dht]
    return gossip + dht + [churn.start + churn.seconds for churn in scenario.churn]
