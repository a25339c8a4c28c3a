"""What docs/reference/training.md says of the settings, held against the classes."""

from __future__ import annotations

import inspect
import json
import re

import pytest

from federated.manifest import PluginRef
from federated.registry import Registry
from plugins.training.numpy_mlp import NumpyMLP
from plugins.training.sklearn_sgd import SklearnSGD
from plugins.training.softmax import Softmax
from tests.documentation import ROOT

TEXT = (ROOT / "docs" / "reference" / "training.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("trainer", [Softmax, NumpyMLP, SklearnSGD])
def test_every_setting_is_there_with_its_default(trainer: type) -> None:
    column = 4 if trainer is SklearnSGD else 2
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in TEXT.splitlines() if line[:1] == "|"]
    for name, parameter in inspect.signature(trainer).parameters.items():
        [row] = [row for row in rows if f"`{name}`" in row[0]]
        default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        shown = "" if default is None else str(default).lower().removesuffix(".0")
        assert shown in row[column].lower(), name


def test_the_example_of_diloco_makes_plugins() -> None:
    [block] = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    refs = {kind: PluginRef(**ref) for kind, ref in json.loads(f"{{{block}}}").items()}
    assert Registry().create("trainer", refs["trainer"]).steps == 100
    assert Registry().create("aggregator", refs["aggregator"]).nesterov
