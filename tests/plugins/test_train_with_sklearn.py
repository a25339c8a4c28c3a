"""What docs/how-to/train-with-sklearn.md shows, run as it stands."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from federated.manifest import PluginRef
from federated.registry import Registry
from tests.documentation import ROOT
from tests.plugins.training import blobs, context

TEXT = (ROOT / "docs" / "how-to" / "train-with-sklearn.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["Spam", "Network"])
def test_the_examples_learn(name: str) -> None:
    names: dict[str, Any] = {"__name__": "train_with_sklearn"}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(compile(block, "train-with-sklearn.md", "exec"), names)
    trainer = names[name](inputs=4, classes=3, epochs=10)
    first = trainer.train(trainer.init(1), blobs(), context())
    assert trainer.evaluate(first.parameters, blobs())["accuracy"] == 1.0
    second = trainer.train(first.parameters, blobs(), context(2, 1, first.state))
    assert second.state["t_"] - first.state["t_"] == 600


def test_the_manifest_makes_a_trainer() -> None:
    [line] = re.findall(r"```json\n\"trainer\": (.*?)\n```", TEXT, re.DOTALL)
    ref = PluginRef(**json.loads(line))
    assert Registry().create("trainer", ref).schedule == "optimal"
