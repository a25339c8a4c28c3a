"""Whole tasks in one process, by the driver, machines and certificates of every network."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
import trio

from federated.errors import DataError, PluginError
from federated.local import driver, local_keys, run_local
from federated.manifest import DifferentialPrivacy, PluginRef, RoundPolicy, TaskManifest
from federated.parameters import Parameters
from federated.plugin import TrainContext, TrainResult
from federated.registry import GROUP, Registry
from federated.reports import Report
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from tests.federated import tiny
from tests.federated.lab import tiny_manifest

LIMIT = 60.0  # seconds for a whole task


class Whimsical:
    """An aggregator that is not pure: it comes to something else each time, at each member."""

    kind = "aggregator"
    calls = itertools.count()

    def aggregate(self, base: Parameters, updates: object) -> Parameters:
        return base | {"w": base["w"] + np.float32(next(self.calls))}


class Stuck(tiny.Pull):
    """Trains well for a round, and then one of its members for ever."""

    released = threading.Event()

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        if context.round == 2 and data == 0:
            self.released.wait(LIMIT)
        return super().train(parameters, data, context)


class Late(tiny.Pull):
    """Raises in the second round."""

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        if context.round == 2:
            raise ValueError("no more")
        return super().train(parameters, data, context)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = {
        "points": "Points",
        "nopoints": "NoPoints",
        "pull": "Pull",
        "nan": "Nan",
        "failingcheck": "FailingCheck",
    }
    found = tiny.BUILT_IN | {name: f"tests.federated.tiny:{value}" for name, value in names.items()}
    found |= {name: f"{__name__}:{name.title()}" for name in ("whimsical", "stuck", "late")}
    points = [EntryPoint(name, value, GROUP) for name, value in found.items()]
    monkeypatch.setattr(driver, "Registry", lambda: Registry(installed=points))
    Stuck.released.clear()
    yield
    Stuck.released.set()


def task(members: int, **changes: Any) -> tuple[TaskManifest, list[KeyPair]]:
    keys = local_keys(members, seed=3)
    peers = [str(PeerId.from_public_key(key.public)) for key in keys]
    return tiny_manifest(members, members=peers, **changes), keys


class Heard:
    """What all members reported."""

    def __init__(self) -> None:
        self.reports: list[tuple[PeerId, Report]] = []

    def tell(self, peer: PeerId, report: Report) -> None:
        self.reports.append((peer, report))

    def of(self, event: str) -> list[Report]:
        return [report for _, report in self.reports if report["event"] == event]

    def rounds(self) -> list[tuple[set[str], int, bool]]:
        """Of each round: the models, how many members told, whether it was skipped by any."""
        found: dict[int, list[Report]] = {}
        for report in self.of("round"):
            found.setdefault(report["round"], []).append(report)
        return [
            ({each["digest"] for each in told}, len(told), any(each["skipped"] for each in told))
            for _, told in sorted(found.items())
        ]


async def run(members: int, **changes: Any) -> tuple[Heard, bool]:
    """What was heard, and whether the budget was spent."""
    heard = Heard()
    with trio.fail_after(LIMIT):
        is_spent = await run_local(*task(members, **changes), heard.tell)
    return heard, is_spent


def plain(manifest: TaskManifest) -> np.ndarray[Any, Any]:
    """What the rounds of the tiny task come to, by hand."""
    w = np.full(4, manifest.seed, np.float32)
    count = len(manifest.members)
    weights = np.arange(1, count + 1) / (count * (count + 1) / 2)
    for _ in range(manifest.rounds):
        steps = [(np.float32(number) - w) / 2 for number in range(count)]
        w = (
            w.astype(np.float64) + sum(weight * step for weight, step in zip(weights, steps, strict=True))
        ).astype(np.float32)
    return w


async def test_every_member_certifies_every_round_with_one_model() -> None:
    heard, is_spent = await run(5, rounds=4)
    assert not is_spent
    assert [(len(models), told, skipped) for models, told, skipped in heard.rounds()] == [(1, 5, False)] * 4
    manifest, _ = task(5, rounds=4)
    loss = float(np.abs(plain(manifest) - 2.0).max())
    assert [report["loss"] for report in heard.of("round") if report["round"] == 4] == [
        pytest.approx(loss, rel=1e-5)
    ] * 5
    assert {report["votes"] for report in heard.of("certificate")} <= {4, 5}
    assert len(heard.of("certificate")) == 20
    assert {report["bytes_sent"] for report in heard.of("round")} == {0}


async def test_one_member_alone_comes_through() -> None:
    heard, _ = await run(1, rounds=3)
    assert [told for _, told, _ in heard.rounds()] == [1, 1, 1]


async def test_a_committee_certifies_for_many_and_auditors_agree() -> None:
    heard, _ = await run(20, rounds=4, committee=4)
    assert [(len(models), told, skipped) for models, told, skipped in heard.rounds()] == [(1, 20, False)] * 4
    assert {report["votes"] for report in heard.of("certificate")} <= {3, 4}
    assert {report["verdict"] for report in heard.of("audit")} == {"agrees"}
    assert not heard.of("offence")


async def test_an_aggregator_that_is_not_pure_shows_in_the_first_round() -> None:
    policy = RoundPolicy(train_deadline_s=5.0, phase_deadline_s=0.2)
    heard, _ = await run(4, rounds=1, aggregator=PluginRef(name="whimsical"), policy=policy)
    assert [skipped for _, _, skipped in heard.rounds()] == [True]


@pytest.mark.parametrize(
    ("plugins", "line"),
    [
        (
            {"trainer": "late"},
            r"round 2 has no update of ours: trainer 'late' failed: ValueError: no more \(test_run.py, line",
        ),
        (
            {"validator": "failingcheck"},
            r"the update of .* is refused: validator 'failingcheck' failed: KeyError",
        ),
        ({"trainer": "gone"}, "no trainer 'gone' is installed"),
    ],
)
async def test_a_plugin_that_fails_ends_the_run_with_its_line(plugins: dict[str, str], line: str) -> None:
    with pytest.raises(PluginError, match=line):
        await run(3, rounds=5, **{kind: PluginRef(name=name) for kind, name in plugins.items()})


async def test_data_that_are_missing_end_the_run() -> None:
    with pytest.raises(DataError, match="the points are missing"):
        await run(3, preprocessor=PluginRef(name="nopoints"))


async def test_a_training_without_end_costs_its_member_the_round_and_nobody_else() -> None:
    policy = RoundPolicy(train_deadline_s=LIMIT, phase_deadline_s=4.0, quorum=0.75)  # it may be the leader
    heard, _ = await run(4, rounds=2, trainer=PluginRef(name="stuck"), policy=policy)
    [_, second] = heard.rounds()
    assert (len(second[0]), second[1:]) == (1, (4, False))
    manifest, _ = task(4)
    stuck = str(manifest.peer_ids[0])
    for report in heard.of("round"):
        assert report["round"] == 1 or (len(report["participants"]), stuck in report["participants"]) == (
            3,
            False,
        )


async def test_the_run_ends_when_all_budgets_are_spent() -> None:
    privacy = DifferentialPrivacy(clip=4.0, noise=4.0, delta=1e-5, epsilon=4.5)
    begun = time.monotonic()
    heard, is_spent = await run(4, rounds=6, privacy=privacy)
    assert is_spent
    assert time.monotonic() - begun < LIMIT
    assert [skipped for _, _, skipped in heard.rounds()] == [False] * 3


async def test_messages_come_in_whatever_order_and_the_models_are_the_same() -> None:
    digests = []
    for seed in (1, 2):
        random.seed(seed)
        heard, _ = await run(3, rounds=3)
        digests.append([models for models, _, _ in heard.rounds()])
    assert digests[0] == digests[1]
