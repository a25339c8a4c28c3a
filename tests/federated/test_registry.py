from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from federated.errors import PluginError
from federated.manifest import PluginRef
from federated.parameters import Parameters
from federated.plugin import (
    Dataset,
    PeerContext,
    TaskPlugin,
    TrainContext,
    Trainer,
    TrainResult,
    checked_settings,
)
from federated.registry import GROUP, Registry
from tests.federated.samples import manifest

HERE = "tests.federated.test_registry"


class Mean:
    kind = "aggregator"

    @checked_settings
    def __init__(self, *, share: Annotated[float, Field(gt=0, le=1)] = 0.5) -> None:
        self.share = share

    def aggregate(self, base: Any, updates: Any) -> Any:
        return base


class Plain:
    kind = "aggregator"

    def __init__(self, *, size: int) -> None:
        if size < 0:
            raise ValueError("size: below zero\nsecond line")

    def aggregate(self, base: Any, updates: Any) -> Any:
        return base


class Hollow:
    kind = "aggregator"


class Nameless:
    def aggregate(self, base: Any, updates: Any) -> Any:
        return base


class Needy:
    kind = "aggregator"

    def __init__(self) -> None:
        raise ModuleNotFoundError("No module named 'abacus'", name="abacus")


class Whole(TaskPlugin):
    def __init__(self, *, size: int = 1) -> None:
        self.size = size

    def load(self, context: PeerContext) -> Dataset:
        return Dataset(train=None, holdout=None, examples=1)

    def init(self, seed: int) -> Parameters:
        return {}

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        return TrainResult(parameters=parameters, examples=1)


def points(**values: str) -> list[EntryPoint]:
    return [EntryPoint(name, value, GROUP) for name, value in values.items()]


def registry(allowed: list[str] | None = None, **more: str) -> Registry:
    known = {name: f"{HERE}:{name.title()}" for name in ("mean", "plain", "hollow", "nameless", "needy")}
    return Registry(allowed, points(**known, **more))


def refused(name: str, settings: dict[str, Any] | None = None, **more: str) -> str:
    with pytest.raises(PluginError) as caught:
        registry(**more).create("aggregator", PluginRef(name=name, settings=settings or {}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_plugin_is_made_with_its_settings() -> None:
    plugin = registry().create("aggregator", PluginRef(name="mean", settings={"share": 1}))
    assert isinstance(plugin, Mean)
    assert plugin.share == 1.0


def test_unknown_name_lists_what_is_installed_of_that_kind() -> None:
    message = refused("median", gone="no_such_module:X", other="federated.registry:Registry")
    assert message == "no aggregator 'median' is installed; there are: hollow, mean, needy, plain"


def test_plugin_of_another_kind_is_refused() -> None:
    with pytest.raises(PluginError, match=r"^plugin 'mean' is of kind aggregator, not trainer"):
        registry().create("trainer", PluginRef(name="mean"))
    assert refused("nameless") == "plugin 'nameless' is of kind None, not aggregator"


def test_plugin_that_lacks_a_method_is_refused() -> None:
    assert refused("hollow") == "plugin 'hollow' lacks a method of its kind, aggregator"


def test_missing_package_is_named() -> None:
    assert refused("gone", gone="no_such_package.x:Y") == (
        "plugin 'gone' needs the package 'no_such_package', which is not installed"
    )
    assert refused("needy") == "plugin 'needy' needs the package 'abacus', which is not installed"


def test_plugin_that_fails_to_import_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    assert refused("broken", broken="broken_plugin:X") == "plugin 'broken' cannot be imported: RuntimeError"
    message = refused("absent", absent=f"{HERE}:Absent")
    assert message.startswith("plugin 'absent' cannot be imported: ")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mean", {"share": 0}, "plugin 'mean': setting share: Input should be greater than 0"),
        ("mean", {"share": "1"}, "plugin 'mean': setting share: Input should be a valid number"),
        ("mean", {"part": 1}, "plugin 'mean': got an unexpected keyword argument 'part'; it takes share"),
        ("plain", {}, "plugin 'plain': missing a required argument: 'size'; it takes size"),
        ("plain", {"size": -1}, "plugin 'plain': size: below zero"),
        ("needy", {"x": 1}, "plugin 'needy': got an unexpected keyword argument 'x'; it takes no settings"),
    ],
)
def test_wrong_settings_are_named_in_one_line(name: str, settings: dict[str, Any], message: str) -> None:
    told = refused(name, settings).replace("required keyword-only argument", "required argument")  # 3.12
    assert told == message


def test_only_enabled_plugins_are_used() -> None:
    some = registry(["mean"])
    assert some.names() == ["mean"]
    assert some.create("aggregator", PluginRef(name="mean"))
    with pytest.raises(PluginError, match=r"^plugin 'plain' is not enabled here: add --plugin plain$"):
        some.create("aggregator", PluginRef(name="plain"))


def test_enabling_a_plugin_that_nobody_installed_is_refused() -> None:
    with pytest.raises(PluginError, match=r"^no plugin 'median' is installed; there are: hollow, mean"):
        registry(["mean", "median"])


def test_one_name_from_two_packages_is_refused() -> None:
    twice = Registry(None, [*points(mean=f"{HERE}:Mean"), *points(mean=f"{HERE}:Plain")])
    with pytest.raises(PluginError, match=r"^plugin 'mean' is installed twice"):
        twice.create("aggregator", PluginRef(name="mean"))


def test_same_entry_point_seen_twice_is_one_plugin() -> None:
    again = Registry(None, points(mean=f"{HERE}:Mean") * 2)
    assert again.create("aggregator", PluginRef(name="mean"))


def test_a_task_gets_the_built_in_plugins() -> None:
    plugins = Registry().load(manifest())
    assert type(plugins.trainer).__name__ == "NumpyMLP"
    assert type(plugins.preprocessor).__name__ == "Digits"
    assert type(plugins.aggregator).__name__ == "WeightedMean"
    assert type(plugins.validator).__name__ == "UpdateCheck"


def test_a_plugin_that_has_data_and_model_is_one_object() -> None:
    registry = Registry(installed=points(whole=f"{HERE}:Whole"))
    whole, other = PluginRef(name="whole"), PluginRef(name="whole", settings={"size": 2})
    one = registry.load_edge(manifest(preprocessor=whole, trainer=whole))
    assert isinstance(one.trainer, Whole)
    assert one.preprocessor is one.trainer
    two = registry.load_edge(manifest(preprocessor=whole, trainer=other))
    assert isinstance(two.preprocessor, Whole)
    assert isinstance(two.trainer, Whole)
    assert (two.preprocessor.size, two.trainer.size) == (1, 2)


def test_nothing_is_imported_before_a_task_names_it() -> None:
    code = (
        "import sys; from federated.registry import Registry; names = Registry().names();"
        "assert 'torch-mlp' in names and 'digits' in names, names;"
        "assert not {'torch', 'sklearn', 'plugins'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=150)


def test_trainer_without_an_own_evaluation_measures_nothing() -> None:
    class Short(Trainer):
        def init(self, seed: int) -> Any: ...
        def train(self, parameters: Any, data: Any, context: Any) -> Any: ...

    assert Short().evaluate({}, None) == {}
