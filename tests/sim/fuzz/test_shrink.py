"""Plans made smaller."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.fuzz.plan import draw_plan
from sim.fuzz.shrink import FEWEST, shrink
from sim.scenario.model import NetworkSettings, Scenario


def weight(plan: Scenario) -> int:
    entries = (plan.faults, plan.churn, plan.adversaries, plan.task, plan.dht, plan.gossip)
    return plan.peers + sum(map(len, entries)) + sum(len(fault.who.nodes) for fault in plan.faults)


def has(kind: str) -> Callable[[Scenario], bool]:
    return lambda plan: any(fault.kind == kind for fault in plan.faults)


SEED = next(seed for seed in range(100) if has("crash")(draw_plan(seed)) and len(draw_plan(seed).faults) > 6)


def test_only_what_it_takes_to_fail_is_left() -> None:
    small = shrink(draw_plan(SEED), has("crash"), 1000)
    [fault] = small.faults
    assert fault.kind == "crash"
    assert fault.seconds <= 0.5
    assert len(fault.who.nodes) == 1
    assert small.peers == max(FEWEST, fault.who.nodes[0] + 1)
    assert [small.churn, small.task, small.dht, small.gossip] == [()] * 4
    assert small.network == NetworkSettings()


def test_a_setting_of_the_network_that_matters_stays() -> None:
    plan = next(plan for plan in map(draw_plan, range(99)) if plan.network.loss and plan.network.message_us)
    small = shrink(plan, lambda candidate: candidate.network.loss > 0, 1000)
    assert small.network == NetworkSettings(loss=plan.network.loss)
    assert not small.faults


def test_two_faults_that_fail_together_both_stay() -> None:
    both = draw_plan(SEED)
    first, last = both.faults[0], both.faults[-1]

    def fails(plan: Scenario) -> bool:
        times = [fault.at for fault in plan.faults]
        return first.at in times and last.at in times

    assert [fault.at for fault in shrink(both, fails, 1000).faults] == [first.at, last.at]


@pytest.mark.parametrize("budget", [0, 1, 5, 30])
def test_no_more_runs_are_spent_than_allowed(budget: int) -> None:
    asked: list[Scenario] = []

    def fails(plan: Scenario) -> bool:
        asked.append(plan)
        return has("crash")(plan)

    small = shrink(draw_plan(SEED), fails, budget)
    assert len(asked) <= budget
    assert len({plan.model_dump_json() for plan in asked}) == len(asked)
    assert has("crash")(small)


def test_a_plan_that_cannot_get_smaller_comes_back() -> None:
    plan = draw_plan(SEED)
    assert shrink(plan, lambda candidate: False, 1000) == plan


def test_tasks_have_fewer_members_and_rounds_when_there_are_fewer_nodes() -> None:
    plan = next(plan for plan in map(draw_plan, range(99)) if plan.task and plan.task[0].rounds > 1)
    small = shrink(plan, lambda candidate: bool(candidate.task), 1000)
    [task] = small.task
    assert (small.peers, task.members, task.rounds) == (FEWEST, FEWEST, 1)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    kinds=st.sets(st.sampled_from(["crash", "hold", "partition", "weather", "reset"]), min_size=1),
    peers=st.integers(2, 20),
    budget=st.integers(0, 120),
)
def test_what_comes_back_fails_and_is_no_larger(seed: int, kinds: set[str], peers: int, budget: int) -> None:
    plan = draw_plan(seed)

    wanted = kinds & {fault.kind for fault in plan.faults}

    def fails(candidate: Scenario) -> bool:
        return candidate.peers >= peers and wanted <= {fault.kind for fault in candidate.faults}

    small = shrink(plan, fails, budget)
    assert fails(small)
    assert weight(small) <= weight(plan)
    assert shrink(plan, fails, budget) == small
