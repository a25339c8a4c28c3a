"""The rounds scenario: checks hold in good and bad weather, and fail when a machine is broken on purpose."""

from __future__ import annotations

from random import Random

import pytest

from federated.rounds.events import Action, Aggregated, Event, Misbehaved, RoundFinished
from federated.rounds.machine import RoundMachine
from federated.rounds.messages import Model
from sim.network import LinkModel, Partition
from sim.report import Figure, Result
from sim.rounds import RoundsSettings, run_rounds

TIES = LinkModel(latency=0.05, spread=0.0, jitter=0.0)


def run(
    peers: int = 5,
    rounds: int = 4,
    seed: int = 1,
    crashes: int = 0,
    links: LinkModel | None = None,
    partition: Partition | None = None,
) -> Result:
    settings = RoundsSettings(
        peers=peers,
        rounds=rounds,
        seed=seed,
        crashes=crashes,
        links=links or LinkModel(),
        partition=partition,
    )
    return run_rounds(settings, Random(seed), lambda step: None)


def failed(result: Result) -> list[str]:
    return [check.name for check in result.checks if not check.holds]


@pytest.mark.parametrize("peers", [1, 2, 3, 4, 7])
def test_in_good_weather_everybody_is_in_every_round(peers: int) -> None:
    result = run(peers=peers)
    assert failed(result) == []
    assert result.figures["skipped"] == 0
    assert result.figures["participants_per_round"] == peers
    assert result.figures["rounds_caught_up"] == 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("links", [LinkModel(), TIES, LinkModel(loss=0.2)])
def test_members_that_crash_come_back_and_all_end_with_one_model(seed: int, links: LinkModel) -> None:
    result = run(seed=seed, crashes=4, links=links)
    assert failed(result) == []


def test_a_crash_of_most_members_stops_nothing_for_good() -> None:
    assert failed(run(peers=4, rounds=3, crashes=12)) == []


@pytest.mark.parametrize("border", [1, 3])
def test_a_partition_heals_without_two_models(border: int) -> None:
    result = run(peers=6, partition=Partition(start=2.0, end=40.0, border=border))
    assert failed(result) == []
    assert result.virtual_seconds > 20


def test_the_seed_decides_the_run_even_when_everything_ties() -> None:
    assert run(crashes=2, links=TIES).trace_hash == run(crashes=2, links=TIES).trace_hash
    assert run(crashes=2, links=TIES).trace_hash != run(crashes=2, links=TIES, seed=2).trace_hash


def test_each_round_is_told_once_in_order() -> None:
    steps: list[dict[str, Figure]] = []
    run_rounds(RoundsSettings(peers=3, rounds=3, seed=1), Random(1), lambda step: steps.append(dict(step)))
    assert [step["round"] for step in steps] == [1, 2, 3]
    assert len({step["digest"] for step in steps}) == 3


# Each check notices what it is there for


def break_machine(monkeypatch: pytest.MonkeyPatch, spoil: object) -> None:
    """Lets `spoil(machine, event, actions)` change what every round machine does."""
    handle = RoundMachine.handle

    def broken(self: RoundMachine, event: Event, now: float) -> list[Action]:
        return spoil(self, event, handle(self, event, now))  # type: ignore[operator, no-any-return]

    monkeypatch.setattr(RoundMachine, "handle", broken)


def test_a_member_with_another_model_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    last: list[object] = []

    def spoil(machine: object, event: Event, actions: list[Action]) -> list[Action]:
        if not last:
            last.append(machine)
        other = Model(digest=bytes(32), root=bytes(32), size=1)
        for action in actions:
            if isinstance(action, RoundFinished) and machine is last[0]:
                object.__setattr__(action, "model", other)
        return actions

    break_machine(monkeypatch, spoil)
    assert "all models are equal after each round" in failed(run())


def test_a_member_that_gets_stuck_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    first: list[object] = []

    def spoil(machine: object, event: Event, actions: list[Action]) -> list[Action]:
        first.append(machine)
        return [] if machine is first[0] else actions

    break_machine(monkeypatch, spoil)
    assert "every member finishes" in failed(run(rounds=1))


def test_an_accusation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    accused: list[Action] = []

    def spoil(machine: object, event: Event, actions: list[Action]) -> list[Action]:
        if not accused and isinstance(event, Aggregated):
            accused.append(Misbehaved(round=1, peer=event.inputs[0].peer, rule="size"))
            return actions + accused
        return actions

    break_machine(monkeypatch, spoil)
    assert failed(run()) == ["no honest member is accused"]
