from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from federated import codec
from federated.errors import AggregationError, CodecError, DataError, PluginError, TrainingStopped
from federated.learner import LocalLearner
from federated.manifest import PluginRef, RoundPolicy
from federated.pace import Pace
from federated.parameters import Parameters
from federated.plugin import Dataset, ModelUpdate, PeerContext, TrainContext, Trainer, TrainResult
from federated.rounds.events import Input
from federated.snapshots import max_state
from federated.workbench import Refusals, Workbench, digest, prepare
from tests.federated import tiny
from tests.federated.lab import peer_number, tiny_manifest


def bench(
    member: int = 1, *, max_update_bytes: int = 1000, policy: RoundPolicy | None = None, **plugins: str
) -> Workbench:
    """The workbench of a member of the tiny task, with other plugins in the places named."""
    changes: dict[str, Any] = {kind: PluginRef(name=name) for kind, name in plugins.items()}
    if policy is not None:
        changes["policy"] = policy
    manifest = tiny_manifest(3, max_update_bytes=max_update_bytes, **changes)
    peer = peer_number(member)
    index = manifest.peer_ids.index(peer)
    context = PeerContext(peer=peer, members=manifest.peer_ids, index=index)
    return prepare(manifest, tiny.registry().load(manifest), context)


def with_trainer(made: Workbench, trainer: Trainer) -> Workbench:
    """`made`, with another trainer of the same model."""
    learner = made._learner
    assert isinstance(learner, LocalLearner)
    learner._plugins = replace(learner._plugins, trainer=trainer)
    return made


def base(made: Workbench) -> Parameters:
    return made.decode(made.initial)


def item(data: bytes = b"", examples: int = 1, number: int = 1) -> Input:
    return Input(peer=peer_number(number), root=bytes([number]) * 32, size=len(data), examples=examples)


def never() -> bool:
    return False


def delta(value: float) -> bytes:
    return codec.encode({"count": np.ones((), np.int64), "w": np.full(4, value, np.float32)})


def test_the_first_model_is_the_same_at_every_member() -> None:
    assert bench(1).initial == bench(2).initial == codec.encode(tiny.Pull().init(3))


def test_training_gives_a_delta_and_leaves_its_base_alone() -> None:
    made = bench()
    before = base(made)
    update = made.train(before, 1, never)
    assert codec.encode(before) == made.initial
    checked = made.check(item(update.data, update.examples), update.data, before)
    assert isinstance(checked, ModelUpdate)
    assert checked.delta["count"] == 1
    point = update.examples - 1
    assert checked.delta["w"] == pytest.approx((point - 3) / 2)


def test_what_fits_before_the_deadline_is_known_from_earlier_trainings() -> None:
    steps: list[int | None] = []

    class Spy(tiny.Pull):
        def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
            steps.append(context.steps)
            return super().train(parameters, data, context)

    made = bench()
    with_trainer(made, Spy())
    made = bench()
    with_trainer(made, Spy())
    pace = Pace()
    made.train(base(made), 1, never, pace)
    pace.observe(30, 10.0)
    made.train(base(made), 2, never, pace)
    assert steps == [None, pace.steps_within(tiny_manifest(1).policy.train_deadline_s)]


def test_the_seed_differs_by_round_and_member_and_repeats_otherwise() -> None:
    seeds: list[int] = []

    class Spy(tiny.Pull):
        def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
            seeds.append(context.seed)
            return super().train(parameters, data, context)

    for member, number in ((1, 1), (1, 2), (2, 1), (1, 1)):
        made = bench(member)
        with_trainer(made, Spy())
        made.train(base(made), number, never)
    assert len(set(seeds)) == 3
    assert seeds[0] == seeds[3]
    assert all(0 <= seed < 1 << 53 for seed in seeds)


@pytest.mark.parametrize(
    ("trainer", "error", "line"),
    [
        (
            "raises",
            PluginError,
            r"trainer 'raises' failed: RuntimeError: out of luck \(tiny\.py, line \d+\)$",
        ),
        ("reshapes", PluginError, r"trainer 'reshapes': tensor count int64\[\] is missing"),
        ("counts", PluginError, r"trainer 'counts': it says that it trained on -1 examples"),
        ("waits", TrainingStopped, "asked"),
    ],
)
def test_a_trainer_that_fails_is_named_in_one_line(trainer: str, error: type[Exception], line: str) -> None:
    made = bench(trainer=trainer)
    with pytest.raises(error, match=line):
        made.train(base(made), 1, never)


def test_a_state_comes_back_to_the_trainer_that_gave_it() -> None:
    made = bench(trainer="glides")
    states: list[bytes | None] = []
    update = made.train(base(made), 1, never)
    assert update.state is not None
    for number in (2, 2, 3):
        state = codec.decode_any(update.state, max_state(len(made.initial)))
        again = made.train(base(made), number, never, state=state)
        assert again.data != update.data
        states.append(again.state)
    assert states[0] == states[1] == states[2] != update.state
    assert bench().train(base(made), 1, never).state is None


@pytest.mark.parametrize(
    ("metrics", "found"),
    [
        ({}, {}),
        ({"b": 1, "a": np.float32(0.5)}, {"a": 0.5, "b": 1.0}),
        ({"a": float("nan"), "b": float("inf")}, {"a": None, "b": None}),
        ({str(number): 0.0 for number in range(33)}, "it tells 33 metrics, more than 32"),
        ({"a": "high"}, "failed: ValueError: could not convert string to float: 'high'"),
        (None, "failed: TypeError: "),
    ],
)
def test_what_a_trainer_tells_is_ready_for_json_or_named_in_one_line(metrics: Any, found: Any) -> None:
    class Tells(tiny.Pull):
        def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
            return replace(super().train(parameters, data, context), metrics=metrics)

    made = bench()
    with_trainer(made, Tells())
    if isinstance(found, str):
        with pytest.raises(PluginError, match=found):
            made.train(base(made), 1, never)
    else:
        told = made.train(base(made), 1, never).metrics
        assert told == found
        json.dumps(told, allow_nan=False)


def bench_that_keeps(state: Any) -> Workbench:
    class Keeps(tiny.Pull):
        def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
            return replace(super().train(parameters, data, context), state=state)

    made = bench()
    with_trainer(made, Keeps())
    return made


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (None, "its state is a NoneType, not a dictionary of arrays"),
        ([np.zeros(1)], "its state is a list, not a dictionary of arrays"),
        ({3: np.zeros(1)}, "its state has the name 3; letters, digits and _./- make one"),
        ({"a\nb": np.zeros(1)}, r"its state has the name 'a\\nb'; letters"),
        ({"a" * 300: np.zeros(1)}, f"its state has the name '{'a' * 79}; letters"),
        ({"m": 1.0}, "its state has a float, not an array, as m"),
        ({"m": np.float32(1)}, "its state has a float32, not an array, as m"),
        ({"m": np.zeros(1, np.complex64)}, r"its state: schema: tensor m complex64\[1\] has a dtype"),
        ({"m": np.zeros(1, object)}, r"its state: schema: tensor m object\[1\] has a dtype"),
        ({"m": np.zeros((1,) * 9)}, r"its state: schema: tensor m float64\[.*\] is over the limits"),
        (
            {"m": np.zeros(max_state(144), np.int8)},
            rf"its state has 10\d+ bytes, more than the {max_state(144)} that a model of this size may$",
        ),
    ],
)
def test_a_state_that_cannot_be_kept_is_named_in_one_line(state: Any, line: str) -> None:
    made = bench_that_keeps(state)
    with pytest.raises(PluginError, match=f"^trainer 'pull': {line}") as caught:
        made.train(base(made), 1, never)
    assert "\n" not in str(caught.value)


def test_a_state_as_large_as_it_may_be_is_kept() -> None:
    made = bench()
    limit = max_state(len(made.initial))
    header = len(codec.encode({"m": np.zeros(0, np.int8)})) + 16  # more digits for the length
    state = {"m": np.zeros(limit - header, np.int8)}
    kept = bench_that_keeps(state).train(base(made), 1, never).state
    assert kept is not None
    assert limit - 16 <= len(kept) <= limit


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "header"),
        (delta(0.0)[:-1], "size"),
        (codec.encode({"w": np.zeros(4, np.float32)}), "schema"),
        (delta(np.nan), "finite"),
        (delta(1e6), "norm"),
        (bytes(2000), "size"),
    ],
)
def test_a_bad_update_is_refused_by_the_name_of_its_rule(data: bytes, rule: str) -> None:
    made = bench()
    assert made.check(item(data), data, base(made)) == rule


def test_the_examples_checked_are_those_that_were_claimed() -> None:
    made = bench()
    assert made.check(item(delta(0.0), examples=0), delta(0.0), base(made)) == "examples"


def updates(made: Workbench, values: Sequence[float]) -> list[ModelUpdate]:
    found = [
        made.check(item(delta(value), number=number), delta(value), base(made))
        for number, value in enumerate(values, start=1)
    ]
    return [update for update in found if isinstance(update, ModelUpdate)]


def test_updates_make_a_model() -> None:
    made = bench()
    model = made.aggregate(base(made), updates(made, [1.0, 2.0, 3.0]))
    assert isinstance(model, bytes)
    assert made.decode(model)["w"] == pytest.approx(5.0)
    made.verify(model, digest(model))


def test_updates_that_do_not_fit_the_rest_are_named() -> None:
    made = bench()
    assert made.aggregate(base(made), updates(made, [1.0, 2.0, 3.0, 4.0, 90.0])) == Refusals(
        refused=((bytes([5]) * 32, "norm"),)
    )


@pytest.mark.parametrize(
    ("aggregator", "error", "line"),
    [
        ("failingmean", PluginError, "aggregator 'failingmean' failed: ZeroDivisionError: division by zero"),
        ("reshapingmean", PluginError, "aggregator 'reshapingmean': tensor count"),
        ("nanmean", AggregationError, "the aggregate of w is not finite"),
        ("weighted-mean", AggregationError, "nothing to average"),
    ],
)
def test_what_is_no_model_is_not_passed_on(aggregator: str, error: type[Exception], line: str) -> None:
    made = bench(aggregator=aggregator)
    with pytest.raises(error, match=line):
        made.aggregate(base(made), [])


def test_a_model_that_the_validator_does_not_approve_is_none() -> None:
    made = bench(validator="steady")
    assert isinstance(made.aggregate(base(made), updates(made, [-0.5, -0.7])), bytes)
    with pytest.raises(AggregationError, match=r"^the model stays as it is: 1\.5 is too little$"):
        made.aggregate(base(made), updates(made, [-1.0, -2.0]))


def test_a_model_is_held_against_its_digest() -> None:
    made = bench()
    made.verify(made.initial, digest(made.initial))
    with pytest.raises(CodecError, match="digest"):
        made.verify(made.initial[:-1] + b"x", digest(made.initial))
    other = codec.encode({"w": np.zeros(4, np.float32)})
    with pytest.raises(CodecError, match="schema"):
        made.verify(other, digest(other))


def test_a_model_is_measured_on_what_was_held_out() -> None:
    made = bench()
    measured = made.evaluate(base(made))
    assert measured == {"accuracy": pytest.approx(1 / 3), "loss": pytest.approx(2.0)}
    json.dumps(measured)


def test_without_held_out_data_there_is_nothing_to_measure() -> None:
    made = bench(preprocessor="nothingheldout")
    assert made.evaluate(base(made)) == {"accuracy": None, "loss": None}


def test_a_loss_that_is_no_number_is_not_reported() -> None:
    made = bench()
    infinite: Parameters = {"count": np.zeros((), np.int64), "w": np.full(4, np.inf, np.float32)}
    assert made.evaluate(infinite) == {"accuracy": 0.0, "loss": None}


def test_data_or_models_that_cannot_be_had_are_explained() -> None:
    told = r"^preprocessor 'nopoints': the points are missing \(tiny.py, line \d+\)$"
    with pytest.raises(DataError, match=told):
        bench(preprocessor="nopoints")
    with pytest.raises(PluginError, match="trainer 'pull': an update has 144 bytes; raise max_update_bytes"):
        bench(max_update_bytes=100)


class Stranger(BaseException):
    """Nothing that `except Exception` would catch."""

    def __str__(self) -> str:
        raise RuntimeError("not even this works")


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (SystemExit(3), r"failed: SystemExit: 3 \(test_workbench\.py, line \d+\)$"),
        (GeneratorExit(), r"failed: GeneratorExit \(test_workbench\.py, line \d+\)$"),
        (Stranger(), r"failed: Stranger \(test_workbench\.py, line \d+\)$"),
        (RecursionError("deep"), r"failed: RecursionError: deep \(test_workbench\.py, line \d+\)$"),
    ],
)
def test_no_error_of_a_plugin_goes_further_than_its_line(raised: BaseException, line: str) -> None:
    class Fails(tiny.Pull):
        def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
            raise raised

    class FailingCheck(tiny.FailingCheck):
        def check(self, update: ModelUpdate, base: Parameters) -> str | None:
            raise raised

    made = with_trainer(bench(), Fails())
    made._plugins = replace(made._plugins, validator=FailingCheck())
    with pytest.raises(PluginError, match=f"^trainer 'pull' {line}"):
        made.train(base(made), 1, never)
    with pytest.raises(PluginError, match=f"^validator 'update-check' {line}"):
        made.check(item(delta(0.0)), delta(0.0), base(made))


def test_the_person_at_the_terminal_is_no_plugin() -> None:
    class Interrupted(tiny.Pull):
        def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
            raise KeyboardInterrupt

    made = with_trainer(bench(), Interrupted())
    with pytest.raises(KeyboardInterrupt):
        made.train(base(made), 1, never)


@pytest.mark.parametrize(
    ("returned", "line"),
    [
        (None, "failed: AttributeError: 'NoneType' object has no attribute 'parameters'"),
        (TrainResult(parameters={"w": [1.0]}, examples=1), "failed: AttributeError: 'list' object"),
        (TrainResult(parameters={"count": np.zeros((), np.int64), "w": np.zeros(4)}, examples=1), "tensor w"),
        (TrainResult(parameters=tiny.Pull().init(0), examples=float("nan")), "failed: ValueError: cannot"),
        (TrainResult(parameters=tiny.Pull().init(0), examples="many"), "failed: TypeError: "),
    ],
)
def test_a_training_that_returns_something_else_is_named_in_one_line(returned: Any, line: str) -> None:
    class Returns(tiny.Pull):
        def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
            return returned  # type: ignore[no-any-return]

    made = with_trainer(bench(), Returns())
    with pytest.raises(PluginError, match=f"^trainer 'pull':? {line}"):
        made.train(base(made), 1, never)


@pytest.mark.parametrize(
    ("measured", "line"),
    [
        (None, "failed: AttributeError: 'NoneType'"),
        ({"accuracy": "high"}, "failed: TypeError: must be real number"),
        ({"loss": np.zeros(2)}, "failed: TypeError: only "),
    ],
)
def test_a_measurement_that_is_none_is_named_in_one_line(measured: Any, line: str) -> None:
    class Measures(tiny.Pull):
        def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
            return measured  # type: ignore[no-any-return]

    made = with_trainer(bench(), Measures())
    with pytest.raises(PluginError, match=f"^trainer 'pull' {line}"):
        made.evaluate(base(made))


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (None, "load returns a NoneType, no Dataset"),
        ([1], "load returns a list, no Dataset"),
        (
            Dataset(train=1, holdout=None, examples=1, profile={"a": {1}}),
            "its profile is not JSON: Object of",
        ),
        (Dataset(train=1, holdout=None, examples=1, profile=3), "its profile is not JSON: 'int'"),  # type: ignore[arg-type]
    ],
)
def test_data_that_are_none_are_named_in_one_line(data: Any, line: str) -> None:
    class Loads(tiny.Points):
        def load(self, context: PeerContext) -> Dataset:
            return data  # type: ignore[no-any-return]

    manifest = tiny_manifest(3)
    context = PeerContext(peer=manifest.peer_ids[0], members=manifest.peer_ids, index=0)
    plugins = replace(tiny.registry().load(manifest), preprocessor=Loads())
    with pytest.raises(PluginError, match=f"^preprocessor 'points':? {line}"):
        prepare(manifest, plugins, context)


def test_a_check_names_a_rule_or_none() -> None:
    class Asserts(tiny.FailingCheck):
        def check(self, update: ModelUpdate, base: Parameters) -> str | None:
            return True  # type: ignore[return-value]

    made = bench()
    made._plugins = replace(made._plugins, validator=Asserts())
    with pytest.raises(PluginError, match=r"^validator 'update-check': check returns a bool, not the name"):
        made.check(item(delta(0.0)), delta(0.0), base(made))


def test_a_judgement_that_is_none_is_named_in_one_line() -> None:
    class Judges(tiny.Steady):
        def judge(self, updates: Sequence[ModelUpdate], model: Parameters) -> Any:
            return [None]

    made = bench(validator="steady")
    found = updates(made, [-0.5])
    made._plugins = replace(made._plugins, validator=Judges())
    with pytest.raises(PluginError, match=r"^validator 'steady' failed: TypeError: cannot unpack"):
        made.aggregate(base(made), found)
