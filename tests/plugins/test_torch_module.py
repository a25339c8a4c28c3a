from __future__ import annotations

import hashlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np
import pytest

from federated import codec
from federated.codec import encode, schema_of
from federated.errors import DataError, PluginError, TrainingStopped
from federated.learner import LocalUpdate
from federated.manifest import PluginRef
from federated.parameters import Parameters
from federated.plugin import PeerContext, TrainContext, Trainer
from federated.registry import GROUP, Registry
from federated.rounds.events import Input
from federated.snapshots import max_state
from federated.workbench import Workbench, prepare
from plugins.training.gradient import CONTROL, OWN
from plugins.training.numpy_mlp import NumpyMLP
from tests.federated.samples import manifest
from tests.plugins.training import blobs, context, never

pytest.importorskip("torch", reason="the torch trainer is an extra that is not installed here")

import torch
from torch import nn
from torch.nn import functional

from plugins.training.torch_module import TorchTrainer


class Small(TorchTrainer):
    """BatchNorm, dropout, and a tied parameter: all that is not plain arithmetic."""

    def module(self) -> nn.Module:
        module = nn.ModuleDict(
            {
                "body": nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2)),
                "square": nn.Linear(6, 6, bias=False),
                "again": nn.Linear(6, 6, bias=False),
                "head": nn.Linear(6, 3),
            }
        )
        module["again"].weight = module["square"].weight
        return module

    def forward(self, module: Any, *inputs: torch.Tensor) -> torch.Tensor:
        [x] = inputs
        for part in ("body", "square", "again", "head"):
            x = module[part](x)
        return x


class Adam(Small):
    def optimiser(self, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=lr, amsgrad=True)


class Layers(TorchTrainer):
    """What `numpy-mlp` is with the same settings."""

    def module(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def test_first_parameters_are_fixed_bits() -> None:
    first = Small().init(7)
    assert [str(spec) for spec in schema_of(first)] == [
        "body.0.bias float32[6]",
        "body.0.weight float32[6, 4]",
        "body.1.bias float32[6]",
        "body.1.num_batches_tracked int64[]",
        "body.1.running_mean float32[6]",
        "body.1.running_var float32[6]",
        "body.1.weight float32[6]",
        "head.bias float32[3]",
        "head.weight float32[3, 6]",
        "square.weight float32[6, 6]",  # tied with again.weight: it travels once
    ]
    digest = hashlib.sha256(encode(first)).hexdigest()
    assert digest == "382a4f869a93178eacb2bccbede359518afb458eff6ac5dbeee12a32022c91b5"
    assert encode(Small().init(7)) == encode(first)
    assert encode(Small().init(8)) != encode(first)
    assert isinstance(Small(), Trainer)


def test_first_parameters_do_not_depend_on_torch_s_generator_and_leave_it_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = encode(Small().init(7))
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(2)
    assert encode(Small().init(7)) == first


def test_first_parameters_are_spread_as_torch_s_own() -> None:
    class Wide(TorchTrainer):
        def module(self) -> nn.Module:
            module = nn.Sequential(nn.Linear(100, 200), nn.Embedding(200, 100), nn.Linear(100, 100))
            with torch.no_grad():
                nn.init.xavier_normal_(module[2].weight)
                module[2].bias.copy_(torch.rand(100) + torch.randn(100))
            return module

    torch.manual_seed(2)
    drawn = Wide().init(1)
    torch.manual_seed(1)
    assert encode(Wide().init(1)) == encode(drawn)
    own = Wide().module().state_dict()
    for name, array in drawn.items():
        assert array.std() == pytest.approx(own[name].std().item(), rel=0.2), name
        assert abs(array.mean() - own[name].mean().item()) < 0.3 * array.std() + 0.02, name


def test_a_draw_that_differs_between_machines_is_refused_in_one_line() -> None:
    class Odd(TorchTrainer):
        def module(self) -> nn.Module:
            torch.randperm(4)
            return nn.Linear(2, 2)

    with pytest.raises(PluginError, match=r"draws with aten\.randperm") as caught:
        Odd().init(1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", [{}, {"mu": 0.5}, {"scaffold": True}, {"steps": 5}, {"decay": 0.5}])
def test_it_takes_the_same_steps_as_the_numpy_trainer(way: dict[str, Any]) -> None:
    way = {"batch": 8, "epochs": 3, "lr": 0.05, "clip": 1.0, "carry": True, **way}
    ours, numpys = Layers(**way), NumpyMLP(inputs=4, classes=3, hidden=[5], **way)
    names = {"0": "layer0", "2": "layer1"}

    def renamed(arrays: Parameters, table: dict[str, str] = names) -> Parameters:
        found = {}
        for name, array in arrays.items():
            prefix, _, rest = name.rpartition("/")
            layer, _, part = rest.partition(".")
            found[f"{prefix}/{table[layer]}.{part}".lstrip("/")] = array
        return found

    base = ours.init(3)
    model, state, theirs = base, {}, {}
    expected = renamed(base)
    for number in range(2):
        mine = ours.train(model, blobs(), context(5, number, state))
        other = numpys.train(expected, blobs(), context(5, number, theirs))
        model, state, expected, theirs = mine.parameters, mine.state, other.parameters, other.state
        assert mine.examples == other.examples
    assert schema_of(renamed(model)) == schema_of(expected)
    assert schema_of(renamed(state)) == schema_of(theirs)
    for found, wanted in ((model, expected), (state, theirs)):
        for name, array in renamed(found).items():
            assert array == pytest.approx(wanted[name], abs=1e-4), name
    measured = ours.evaluate(model, blobs())
    assert measured == pytest.approx(numpys.evaluate(expected, blobs()), abs=1e-3)


def test_training_learns_and_leaves_its_input_alone() -> None:
    trainer = Small(epochs=12, lr=0.1, batch=16)
    base = trainer.init(1)
    before = encode(base)
    result = trainer.train(base, blobs(), context())
    assert encode(base) == before
    assert schema_of(result.parameters) == schema_of(base)
    assert (result.examples, result.state) == (60, {})
    assert trainer.evaluate(base, blobs())["accuracy"] < 0.9
    assert trainer.evaluate(result.parameters, blobs())["accuracy"] > 0.95
    assert result.parameters["body.1.num_batches_tracked"] == 12 * 4
    assert np.abs(result.parameters["body.1.running_mean"]).max() > 0.1


def test_gradients_of_tied_parameters_count_for_both_uses() -> None:
    trainer = Small(steps=1, batch=60, lr=1.0)
    base = trainer.init(1)
    step = base["square.weight"] - trainer.train(base, blobs(), context()).parameters["square.weight"]
    assert np.abs(step).max() > 1e-4


@pytest.mark.parametrize("kind", [Small, Adam])
def test_training_again_from_the_same_state_gives_the_same_bits(kind: type[Small]) -> None:
    settings: dict[str, Any] = {"carry": True, "scaffold": True, "local": ["body.1."], "batch": 16}
    one, other = kind(**settings), kind(**settings)
    base = one.init(1)
    other.init(1)
    first = one.train(base, blobs(), context(1, 1))
    second = one.train(first.parameters, blobs(), context(2, 2, first.state))
    torch.rand(1)  # somebody draws
    kept = codec.decode_any(encode(first.state), max_state(len(encode(base))))  # as after a restart
    again = other.train(first.parameters, blobs(), context(2, 2, kept))
    assert encode(again.parameters) == encode(second.parameters)
    assert encode(again.state) == encode(second.state)
    fresh = other.train(first.parameters, blobs(), context(2, 2))
    assert encode(fresh.parameters) != encode(second.parameters)


@pytest.mark.parametrize(
    "name", ["SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "NAdam", "Adadelta", "ASGD", "Rprop"]
)
def test_the_state_of_every_optimiser_is_carried(name: str) -> None:
    class Some(Layers):
        def optimiser(self, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
            found: torch.optim.Optimizer = getattr(torch.optim, name)(parameters, lr=lr)
            return found

    data = blobs()
    parts = Some(steps=2, batch=60, carry=True, lr=0.01)
    base = parts.init(1)
    first = parts.train(base, data, context(1))
    second = parts.train(first.parameters, data, context(1, 1, first.state)).parameters
    whole = Some(steps=4, batch=60, lr=0.01).train(base, data, context(1)).parameters
    for key, array in whole.items():
        assert second[key] == pytest.approx(array, abs=1e-5), key  # the order of a batch differs


def test_an_optimiser_that_keeps_other_things_is_named() -> None:
    class Strange(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["history"] = [1, 2]

    class Some(Layers):
        def optimiser(self, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
            return Strange(parameters, lr=lr)

    some = Some(carry=True)
    with pytest.raises(PluginError, match="setting carry: Strange keeps history, a list; only tensors"):
        some.train(some.init(1), blobs(), context())
    Some().train(some.init(1), blobs(), context())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_comes_to_nearly_the_same(precision: str) -> None:
    settings: dict[str, Any] = {"epochs": 5, "lr": 0.05, "scaffold": True, "carry": True, "device": "cpu"}
    mixed, exact = Layers(precision=precision, **settings), Layers(**settings)
    base = exact.init(1)
    wanted = exact.train(base, blobs(), context())
    found = mixed.train(base, blobs(), context())
    assert schema_of(found.parameters) == schema_of(base)
    for name, array in wanted.parameters.items():
        assert found.parameters[name] == pytest.approx(array, abs=0.05), name
    assert encode(found.parameters) != encode(wanted.parameters)
    assert mixed.evaluate(base, blobs())["loss"] == pytest.approx(
        exact.evaluate(base, blobs())["loss"], abs=0.02
    )


def test_the_scale_of_half_precision_is_kept_and_its_skipped_steps_count_nowhere() -> None:
    class Large(Layers):
        def loss(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return 1e3 * functional.cross_entropy(outputs, target)  # times 65536 is beyond half precision

    settings: dict[str, Any] = {"batch": 60, "lr": 1e-5, "scaffold": True, "device": "cpu"}
    mixed = Large(precision="fp16", steps=12, carry=True, **settings)
    base = mixed.init(1)
    first = mixed.train(base, blobs(), context())
    scale = float(first.state["gradient-scale"])
    assert 1 <= scale < 65536
    second = mixed.train(base, blobs(), context(1, 1, first.state))
    assert float(second.state["gradient-scale"]) == scale  # it begins where the last one ended
    exact = Large(steps=1, **settings).train(base, blobs(), context())
    for name in (name for name in base if name.startswith(CONTROL)):
        assert first.parameters[name] == pytest.approx(exact.parameters[name], rel=0.05, abs=2.0), name
    one = Large(precision="fp16", steps=1, carry=True, **settings).train(base, blobs(), context())
    for name in base:  # its only step was skipped
        assert (one.parameters[name] == base[name]).all()
    after = Large(precision="fp16", steps=1, carry=True, **settings)
    moved = after.train(base, blobs(), context(1, 1, first.state)).parameters
    assert any((moved[name] != base[name]).any() for name in base if not name.startswith(CONTROL))


def test_own_layers_stay_in_the_state() -> None:
    trainer = Small(local=["body.1.", "head."], epochs=12, lr=0.1, batch=16)
    base = trainer.init(1)
    assert sorted(base) == ["body.0.bias", "body.0.weight", "square.weight"]
    result = trainer.train(base, blobs(), context())
    assert sorted(result.parameters) == sorted(base)
    assert f"{OWN}body.1.running_var" in result.state
    assert trainer.evaluate(result.parameters, blobs())["accuracy"] > 0.95


def test_frozen_parameters_do_not_move_and_have_no_variate() -> None:
    class Frozen(Layers):
        def module(self) -> nn.Module:
            module = super().module()
            module[0].requires_grad_(False)
            return module

    trainer = Frozen(scaffold=True)
    base = trainer.init(1)
    assert [name for name in base if name.startswith(CONTROL)] == [f"{CONTROL}2.weight", f"{CONTROL}2.bias"]
    new = trainer.train(base, blobs(), context()).parameters
    assert [name for name in base if (new[name] == base[name]).all()] == ["0.weight", "0.bias"]


def test_a_parameter_that_a_step_does_not_use_has_no_gradient() -> None:
    class Spare(Layers):
        def module(self) -> nn.Module:
            module = super().module()
            module.register_parameter("spare", nn.Parameter(torch.ones(2)))
            return module

        def forward(self, module: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
            [x] = inputs
            for part in module.children():
                x = part(x)
            return x

    trainer = Spare(scaffold=True, mu=1.0)
    base = trainer.init(1)
    new = trainer.train(base, blobs(), context()).parameters
    assert (new["spare"] == 1).all()
    assert not new[CONTROL + "spare"].any()
    assert (
        Spare(mu=1.0)
        .train({"spare": base["spare"], **Layers().init(1)}, blobs(), context())
        .parameters["spare"]
        == 1
    ).all()


def test_tensors_of_other_kinds_travel_without_loss() -> None:
    class Kinds(Layers):
        def module(self) -> nn.Module:
            module = super().module()
            module.register_buffer("brief", torch.tensor([0.1, 2.0], dtype=torch.bfloat16))
            module.register_buffer("mask", torch.tensor([True, False]))
            module.register_buffer("scratch", torch.zeros(3), persistent=False)
            return module

    trainer = Kinds()
    base = trainer.init(1)
    assert {name: array.dtype.name for name, array in base.items() if not name[0].isdigit()} == {
        "brief": "float32",
        "mask": "uint8",
    }
    new = trainer.train(base, blobs(), context()).parameters
    assert (new["brief"] == base["brief"]).all()
    assert new["mask"].tolist() == [1, 0]


def test_what_is_no_tensor_cannot_travel() -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"version": 2}

        def set_extra_state(self, state: Any) -> None: ...

    class Some(TorchTrainer):
        def module(self) -> nn.Module:
            return Extra(4, 3)

    with pytest.raises(PluginError, match="_extra_state in the state_dict is a dict: only tensors travel"):
        Some().init(1)


def test_a_regression_has_a_loss_of_its_own_and_no_accuracy() -> None:
    class Line(TorchTrainer):
        def module(self) -> nn.Module:
            return nn.Linear(4, 1)

        def loss(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return functional.mse_loss(outputs[:, 0], target)

    x, _ = blobs()
    y = x @ np.array([1.0, -2.0, 0.5, 0.0])
    trainer = Line(epochs=200, lr=0.05, batch=60)
    new = trainer.train(trainer.init(1), (x, y), context()).parameters
    assert trainer.evaluate(new, (x, y)) == {"loss": pytest.approx(0.0, abs=1e-3)}
    assert new["weight"][0] == pytest.approx([1.0, -2.0, 0.5, 0.0], abs=0.1)


def test_inputs_may_be_several_arrays_of_any_numbers() -> None:
    class Two(TorchTrainer):
        def module(self) -> nn.Module:
            return nn.ModuleList([nn.Embedding(3, 3), nn.Linear(4, 3)])

        def forward(self, module: Any, *inputs: torch.Tensor) -> torch.Tensor:
            words, numbers, mask = inputs
            assert (words.dtype, numbers.dtype, mask.dtype) == (torch.int64, torch.float32, torch.bool)
            outputs: torch.Tensor = module[0](words) + module[1](numbers) * mask[:, None]
            return outputs

    x, y = blobs()
    data = (y.astype(np.uint8), x.astype(np.float64), y > 0, y.astype(np.int32))
    trainer = Two(epochs=20, lr=0.1)
    new = trainer.train(trainer.init(1), data, context()).parameters
    assert trainer.evaluate(new, data)["accuracy"] == 1.0


def test_training_stops_when_asked_and_where_the_time_ends() -> None:
    trainer = Layers(batch=8)
    base = trainer.init(1)
    with pytest.raises(TrainingStopped):
        trainer.train(base, blobs(), TrainContext(round=0, seed=1, should_stop=lambda: True))
    limited = TrainContext(round=0, seed=1, should_stop=never, steps=2)
    assert trainer.train(base, blobs(), limited).examples == 16


def test_a_training_that_runs_away_says_what_to_do() -> None:
    trainer = Layers(lr=1e30, epochs=3)
    with pytest.raises(PluginError, match="is not finite after the training: set clip, or lower lr"):
        trainer.train(trainer.init(1), blobs(), context())


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ((), "nothing: not inputs and a target"),
        ((np.zeros((3, 4)),), r"float64\[3, 4\]: not inputs and a target"),
        ((np.zeros((3, 4)), np.array("x")), "not inputs and a target"),
        ((np.zeros((3, 4)), np.float32(1)), "not inputs and a target"),
        ((np.zeros((3, 4)), np.zeros(2, int)), "not one row for each example"),
        ((np.zeros((0, 4)), np.zeros(0, int)), "not one row for each example"),
    ],
)
def test_data_of_another_form_are_refused(data: Any, line: str) -> None:
    trainer = Layers()
    base = trainer.init(1)
    for use in (trainer.train, lambda model, data, _: trainer.evaluate(model, data)):
        with pytest.raises(DataError, match=line):
            use(base, data, context())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("device", "tpu"),
        ("threads", 0),
        ("precision", "half"),
        ("lr", 0),
        ("clip", 0),
        ("steps", 0),
        ("batch", 0),
        ("epochs", 0),
        ("mu", -1),
        ("scaffold", "yes"),
        ("local", "head"),
        ("depth", 3),
    ],
)
def test_wrong_setting_is_named(setting: str, value: Any) -> None:
    with pytest.raises(PluginError, match=f"setting {setting}") as caught:
        Layers(**{setting: value})
    assert "\n" not in str(caught.value)


def test_the_device_is_one_that_there_is() -> None:
    cuda = torch.cuda.is_available()
    assert Layers().device.type == ("cuda" if cuda else "cpu")
    assert Layers(device="cpu").device.type == "cpu"
    if not cuda:
        with pytest.raises(PluginError, match="setting device: this machine has no cuda"):
            Layers(device="cuda")


class Digits64(Small):
    def module(self) -> nn.Module:
        return nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, module: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = module(*inputs)
        return outputs


def test_a_task_on_the_workbench_goes_on_after_a_restart_as_if_there_were_none() -> None:
    settings = {"carry": True, "scaffold": True, "local": ["1."], "epochs": 2, "lr": 0.05}
    task = manifest(trainer=PluginRef(name="digits64", settings=settings))
    point = EntryPoint(name="digits64", value=f"{__name__}:Digits64", group=GROUP)
    registry = Registry(installed=[*entry_points(group=GROUP), point])

    def begun(index: int) -> Workbench:
        context = PeerContext(peer=task.peer_ids[index], members=task.peer_ids, index=index)
        return prepare(task, registry.load(task), context)

    def trained(bench: Workbench, base: Parameters, number: int, state: bytes | None) -> LocalUpdate:
        kept = {} if state is None else codec.decode_any(state, max_state(len(bench.initial)))
        return bench.train(base, number, never, None, kept)

    benches = [begun(index) for index in range(3)]
    model, states = benches[0].initial, [None] * 3
    accuracy = []
    for number in range(1, 4):
        base = benches[0].decode(model)
        updates = [trained(bench, base, number, state) for bench, state in zip(benches, states, strict=True)]
        restarted = trained(begun(1), base, number, states[1])
        assert (restarted.data, restarted.state) == (updates[1].data, updates[1].state)
        checked = [
            benches[0].check(
                Input(peer=peer, root=bytes([index]), size=len(made.data), examples=made.examples),
                made.data,
                base,
            )
            for index, (peer, made) in enumerate(zip(task.peer_ids, updates, strict=True))
        ]
        assert not [found for found in checked if isinstance(found, str)]
        made_model = benches[0].aggregate(base, checked)
        assert isinstance(made_model, bytes)
        model, states = made_model, [update.state for update in updates]
        accuracy.append(benches[0].evaluate(benches[0].decode(model))["accuracy"])
    assert accuracy[-1] is not None
    assert accuracy[-1] > 0.75
