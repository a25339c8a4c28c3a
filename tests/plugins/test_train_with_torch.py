"""What docs/how-to/train-with-torch.md shows, run as it stands."""

from __future__ import annotations

import inspect
import re
import sys
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from federated.codec import encode
from federated.errors import TrainingStopped
from federated.manifest import PluginRef
from federated.plugin import PeerContext, TrainContext, Trainer
from federated.registry import GROUP, Registry
from federated.workbench import prepare
from plugins.preprocessing.digits import Digits
from tests.documentation import ROOT
from tests.federated.samples import manifest, peer
from tests.plugins.training import context, never

pytest.importorskip("torch", reason="the torch trainer is an extra that is not installed here")


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    text = (ROOT / "docs" / "how-to" / "train-with-torch.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "train_with_torch"}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "train-with-torch.md", "exec"), names)
    return names


def learned(trainer: Trainer) -> dict[str, float]:
    """How well it does on the digits after one round alone, and that it keeps to the rules."""
    data = Digits().load(PeerContext(peer=peer(1), members=(peer(1),), index=0))
    base = trainer.init(1)
    before = encode(base)
    result = trainer.train(base, data.train, context())
    assert encode(base) == before == encode(trainer.init(1))
    assert encode(trainer.train(base, data.train, context()).parameters) == encode(result.parameters)
    with pytest.raises(TrainingStopped):
        trainer.train(base, data.train, TrainContext(round=0, seed=1, should_stop=lambda: True))
    return trainer.evaluate(result.parameters, data.holdout)


def test_a_module_is_a_trainer(examples: dict[str, Any]) -> None:
    assert learned(examples["Pictures"](epochs=2, lr=0.05, precision="bf16"))["accuracy"] > 0.93


def test_data_and_model_in_one_class_are_a_task(
    examples: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = ModuleType("my_package")
    package.Digits = examples["Digits"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_package", package)
    point = EntryPoint(name="mine", value="my_package:Digits", group=GROUP)
    mine = PluginRef(name="mine")
    task = manifest(preprocessor=mine, trainer=PluginRef(name="mine", settings={"lr": 0.05}))
    plugins = Registry(installed=[*entry_points(group=GROUP), point])
    place = PeerContext(peer=task.peer_ids[1], members=task.peer_ids, index=1)
    bench = prepare(task, plugins.load(task), place)
    base = bench.decode(bench.initial)
    assert bench.train(base, 1, never).examples > 300


def test_a_model_with_a_state_dict_of_its_own_learns(examples: dict[str, Any]) -> None:
    import torch

    trainer = examples["Sentences"](lr=0.01, epochs=8, carry=True)
    generator = np.random.default_rng(1)
    words = generator.integers(2, 50, (200, 6))
    words[:, 0] = 1  # where the answer is read off
    labels = generator.integers(0, 2, 200)
    words[labels == 1, generator.integers(1, 4, 200)[labels == 1]] = 0  # a word that says it all
    mask = np.ones_like(words)
    mask[:, 4:] = generator.integers(0, 2, (200, 2))
    data = (words, mask, labels)
    base = trainer.init(1)
    assert {"encoder.layer.0.attention.in_proj_weight", "embeddings.word_embeddings.weight"} < set(base)
    result = trainer.train(base, data, context())
    assert trainer.evaluate(result.parameters, data)["accuracy"] > 0.95
    assert "exp_avg/encoder.layer.1.norm.weight" in result.state
    tensors = {name: torch.from_numpy(array) for name, array in result.parameters.items()}
    assert trainer.module().load_state_dict(tensors)


def test_what_else_a_state_dict_may_have_goes_along(examples: dict[str, Any]) -> None:
    import torch

    trainer = examples["NextWord"](lr=0.02, epochs=6)
    words = np.random.default_rng(1).integers(0, 20, (200, 6))
    data = (words, np.roll(words, 1, axis=1) % 10)  # of the word before: only the place tells where that is
    base = trainer.init(1)
    assert {name: base[name].dtype.name for name in ("wte.weight", "position_ids", "causal")} == {
        "wte.weight": "float32",
        "position_ids": "int64",
        "causal": "uint8",
    }
    assert "lm_head.weight" not in base
    assert encode(base) == encode(trainer.init(1))
    new = trainer.train(base, data, context()).parameters
    before, after = trainer.evaluate(base, data), trainer.evaluate(new, data)
    assert after["loss"] < 0.7 * before["loss"]
    assert new["norm.num_batches_tracked"] == 6 * 7
    assert np.array_equal(new["position_ids"], np.arange(8))
    module = trainer.module()
    found = module.load_state_dict(
        {name: torch.from_numpy(array) for name, array in new.items()}, strict=False
    )
    assert (found.missing_keys, found.unexpected_keys) == (["lm_head.weight"], [])
    assert module.lm_head.weight is module.wte.weight
    assert torch.equal(module.wte.weight.float(), torch.from_numpy(new["wte.weight"]))


def test_every_setting_is_in_the_reference() -> None:
    from plugins.training.torch_module import TorchTrainer

    text = (ROOT / "docs" / "reference" / "training.md").read_text(encoding="utf-8")
    names = [name for name in inspect.signature(TorchTrainer).parameters if name != "self"]
    assert not [name for name in names if not re.search(rf"^\| .*`{name}`", text, re.MULTILINE)]


def test_a_loop_of_one_s_own_is_a_trainer(examples: dict[str, Any]) -> None:
    trainer = examples["Loop"]()
    data = Digits().load(PeerContext(peer=peer(1), members=(peer(1),), index=0))
    assert learned(trainer) == {}
    assert data.holdout is not None
    base = trainer.init(1)
    new = trainer.train(base, data.train, context()).parameters
    x, y = data.holdout
    hidden = np.tanh(x @ new["0.weight"].T + new["0.bias"])
    assert np.mean((hidden @ new["2.weight"].T + new["2.bias"]).argmax(1) == y) > 0.85
