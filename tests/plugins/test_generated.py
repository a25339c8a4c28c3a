from __future__ import annotations

import sys

import numpy as np
import pytest

from federated.errors import DataError, PluginError
from federated.plugin import Dataset, PeerContext, TrainContext
from plugins.preprocessing.generated import Generated
from plugins.training.softmax import Softmax
from tests.federated.samples import peer

PEERS = tuple(sorted(peer(number) for number in range(5)))


def load(index: int, count: int = 5, seed: int = 7, examples: int = 1000) -> Dataset:
    context = PeerContext(peer=PEERS[index], members=PEERS[:count], index=index)
    return Generated(seed=seed, examples=examples).load(context)


def test_every_example_has_one_owner_and_a_fifth_has_none() -> None:
    whole, shards = load(0, 1), [load(index) for index in range(5)]
    rows = np.concatenate([shard.train[0] for shard in shards])
    assert sorted(map(bytes, rows)) == sorted(map(bytes, whole.train[0]))
    assert whole.holdout is not None
    assert (whole.train[0].shape, whole.holdout[0].shape) == ((800, 64), (200, 64))
    assert whole.train[0].dtype == np.float32
    assert not {bytes(row) for row in rows} & {bytes(row) for row in whole.holdout[0]}


def test_the_seed_decides_and_nothing_else() -> None:
    assert load(1).train[0].tobytes() == load(1).train[0].tobytes()
    assert load(1).train[0].tobytes() != load(1, seed=8).train[0].tobytes()


def test_all_classes_can_be_learnt_from_inputs_of_one_scale() -> None:
    data = load(0, 1, examples=2000)
    x, y = data.train
    assert np.unique(y).tolist() == list(range(10))
    assert x.std(axis=0) == pytest.approx(np.ones(64), abs=0.1)
    trainer = Softmax()
    model = trainer.init(1)
    for number in range(5):
        context = TrainContext(round=number, seed=number, should_stop=lambda: False)
        model = trainer.train(model, data.train, context).parameters
    assert trainer.evaluate(model, data.holdout)["accuracy"] > 0.85


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="need the package 'scikit-learn'"):
        load(0)


@pytest.mark.parametrize(("setting", "value"), [("alpha", 0.0), ("examples", 99), ("seed", 1 << 32)])
def test_wrong_setting_is_named(setting: str, value: float) -> None:
    with pytest.raises(PluginError, match=f"setting {setting}"):
        Generated(**{setting: value})  # type: ignore[arg-type]  # that is the point
