"""A task tried out by calls, and whole in one process: what an author runs first."""

from __future__ import annotations

from functools import partial
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import trio

from federated import trial
from federated.errors import PluginError
from federated.local import driver, local_keys, run_local
from federated.manifest import PluginRef
from federated.plugin import Dataset, PeerContext, TaskPlugin, TrainContext, TrainResult
from federated.registry import GROUP, Registry
from federated.trial import try_out
from p2p.peer_id import PeerId
from tests.federated import tiny
from tests.federated.lab import tiny_manifest

HERE = "tests.federated.test_trial"


class Whole(TaskPlugin):
    """Pulls four numbers towards the member's own, by a task of one class."""

    def __init__(self, *, far: float = 1.0) -> None:
        self.far = far

    def load(self, context: PeerContext) -> Dataset:
        return Dataset(train=self.far * context.index, holdout=0.0, examples=1)

    def init(self, seed: int) -> Any:
        return tiny.Pull().init(seed)

    def train(self, parameters: Any, data: Any, context: TrainContext) -> TrainResult:
        return tiny.Pull().train(parameters, data, context)


class Measured(Whole):
    """The same, which measures something."""

    def evaluate(self, parameters: Any, data: Any) -> dict[str, float]:
        return {"accuracy": 0.25, "loss": float(parameters["w"][0])}


def registry() -> Registry:
    names = {name: f"{HERE}:{name.title()}" for name in ("whole", "measured")}
    found = (
        tiny.BUILT_IN | names | {"nan": "tests.federated.tiny:Nan", "points": "tests.federated.tiny:Points"}
    )
    found |= {"huge": "tests.federated.tiny:Huge", "failingcheck": "tests.federated.tiny:FailingCheck"}
    return Registry(installed=[EntryPoint(name, value, GROUP) for name, value in sorted(found.items())])


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "Registry", registry)
    monkeypatch.setattr(driver, "Registry", registry)


def test_a_task_is_both_preprocessor_and_trainer_and_nothing_else() -> None:
    for kind in ("preprocessor", "trainer"):
        assert isinstance(registry().create(kind, PluginRef(name="whole", settings={"far": 2.0})), Whole)
    with pytest.raises(PluginError, match=r"^plugin 'whole' is of kind task, not aggregator$"):
        registry().create("aggregator", PluginRef(name="whole"))
    with pytest.raises(PluginError, match=r"there are: .*measured.*whole"):
        registry().create("trainer", PluginRef(name="none"))


def test_the_installed_plugins_by_kind() -> None:
    points = [EntryPoint("whole", f"{HERE}:Whole", GROUP), EntryPoint("gone", "no_such_module:X", GROUP)]
    assert Registry(installed=points).kinds() == {
        "task": ["whole"],
        "broken": ["plugin 'gone' needs the package 'no_such_module', which is not installed"],
    }


def test_rounds_by_calls_come_to_what_the_members_pull_at() -> None:
    losses = [each["loss"] for each in try_out("measured", members=3, rounds=12, seed=0)]
    assert losses[-1] == pytest.approx(4 / 3, abs=0.01)  # of 0, 1 and 2, weighed by 1, 2 and 3
    assert losses == sorted(losses)
    assert [each["accuracy"] for each in try_out("measured", members=2, rounds=2)] == [0.25, 0.25]
    assert try_out("whole", members=1, rounds=1) == [{"accuracy": None, "loss": None}]


@pytest.mark.parametrize(
    ("plugins", "line"),
    [
        ({"task": "whole", "members": 0}, r"^members: a task has 1 to 1024 members, not 0$"),
        ({"task": "gone"}, r"^no preprocessor 'gone' is installed"),
        ({"preprocessor": PluginRef(name="points"), "trainer": PluginRef(name="nan")}, "rule 'finite'$"),
        (
            {"task": "whole", "validator": PluginRef(name="update-check", settings={"max_norm": 1e-6})},
            "break the rule|breaks the rule 'norm'$",
        ),
        ({"task": "whole", "validator": PluginRef(name="failingcheck")}, "^validator 'failingcheck' failed"),
    ],
)
def test_what_fails_is_said_in_one_line(plugins: dict[str, Any], line: str) -> None:
    with pytest.raises(PluginError, match=line) as caught:
        try_out(**plugins)
    assert "\n" not in str(caught.value)


def test_updates_that_do_not_fit_the_rest_are_named() -> None:
    settings = {"max_norm": 1e6, "max_ratio": 2.0}
    check = PluginRef(name="update-check", settings=settings)
    with pytest.raises(PluginError, match=r"^round \d: \d updates break the rule 'norm'$"):
        try_out("whole", members=8, validator=check, seed=0)


async def test_a_whole_task_runs_in_one_process() -> None:
    keys = local_keys(4, seed=3)
    assert [key.public for key in keys] == [key.public for key in local_keys(4, seed=3)]
    peers = [str(PeerId.from_public_key(key.public)) for key in keys]
    plugin = PluginRef(name="measured")
    manifest = tiny_manifest(4, members=peers, rounds=3, preprocessor=plugin, trainer=plugin)
    rounds: dict[int, set[str]] = {}

    def tell(peer: PeerId, report: dict[str, Any]) -> None:
        if report["event"] == "round":
            rounds.setdefault(report["round"], set()).add(report["digest"])
            assert report["accuracy"] == 0.25

    with trio.fail_after(60):
        await run_local(manifest, keys, tell)
    assert {number: len(digests) for number, digests in rounds.items()} == {1: 1, 2: 1, 3: 1}


async def test_a_task_that_cannot_run_here_says_so_at_once() -> None:
    keys = local_keys(2, seed=3)
    peers = [str(PeerId.from_public_key(key.public)) for key in keys]
    manifest = tiny_manifest(2, members=peers, trainer=PluginRef(name="gone"))
    with trio.fail_after(60), pytest.raises(PluginError, match="no trainer 'gone' is installed"):
        await run_local(manifest, keys, partial(lambda *_: None))
