from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.demo.task import centralised_accuracy, demo_manifest
from federated.errors import DataError, PluginError
from federated.plugin import Dataset, PeerContext
from plugins.preprocessing.dealing import MIN_SAMPLES, deal, partition
from plugins.preprocessing.digits import Digits
from tests.federated.samples import peer
from tests.plugins.training import run_rounds

PEERS = tuple(sorted(peer(number) for number in range(6)))


def load(index: int, count: int = 6, seed: int = 7, alpha: float = 0.5) -> Dataset:
    members = PEERS[:count]
    context = PeerContext(peer=members[index], members=members, index=index)
    return Digits(alpha=alpha, seed=seed).load(context)


def test_held_out_fifth_is_the_same_at_every_peer_and_nobody_trains_on_it() -> None:
    shards = [load(index) for index in range(6)]
    held = shards[0].holdout
    assert held is not None
    assert len(held[0]) == len(held[1]) == 360
    for shard in shards[1:]:
        assert shard.holdout is not None
        assert shard.holdout[0].tobytes() == held[0].tobytes()
    whole = load(0, 1)
    rows = np.concatenate([shard.train[0] for shard in shards])
    assert sorted(map(bytes, rows)) == sorted(map(bytes, whole.train[0]))
    assert not {bytes(row) for row in rows} & {bytes(row) for row in held[0]}


def test_one_member_alone_gets_the_whole_training_set() -> None:
    data = load(0, 1)
    x, y = data.train
    assert x.shape == (1437, 64)
    assert x.dtype == np.float32
    assert y.dtype == np.int64
    assert x.min() == 0.0
    assert x.max() == 1.0
    assert data.examples == 1437


def test_shards_differ_in_their_mix_of_classes() -> None:
    mixes = [np.bincount(load(index).train[1], minlength=10) / load(index).examples for index in range(6)]
    assert max(np.abs(mixes[0] - mix).max() for mix in mixes[1:]) > 0.2
    even = [np.bincount(load(index, alpha=1e4).train[1], minlength=10) for index in range(6)]
    assert max(np.abs(even[0] - mix).max() for mix in even[1:]) <= 4


def test_numbers_to_be_predicted_are_dealt_out_by_tenths() -> None:
    x, y = np.arange(500.0)[:, None], np.sin(np.arange(500.0))
    shards = [
        deal(x, y, PeerContext(peer=PEERS[index], members=PEERS, index=index), alpha=0.1)
        for index in range(6)
    ]
    rows = np.concatenate([shard.train[0] for shard in shards])
    assert len(rows) == len(np.unique(rows)) == 400
    means = []
    for shard in shards:
        features, targets = shard.train
        assert targets.dtype == np.float32
        assert np.allclose(targets, np.sin(features[:, 0]), atol=1e-4)
        means.append(targets.mean())
    assert max(means) - min(means) > 0.3


def test_labels_that_are_no_numbers_are_refused() -> None:
    context = PeerContext(peer=PEERS[0], members=PEERS, index=0)
    with pytest.raises(DataError, match="not one number for each of 30 examples"):
        deal(np.zeros((30, 2)), np.array(["red"] * 30), context)


def test_split_depends_on_the_seed_alone() -> None:
    assert load(1).train[0].tobytes() == load(1).train[0].tobytes()
    assert load(1).train[0].tobytes() != load(1, seed=8).train[0].tobytes()


@given(
    labels=st.lists(st.integers(0, 9), min_size=40, max_size=120),
    shards=st.integers(1, 10),
    alpha=st.floats(0.01, 100),
    seed=st.integers(0, 1 << 53),
)
def test_partition_gives_every_row_to_one_shard_and_enough_to_each(
    labels: list[int], shards: int, alpha: float, seed: int
) -> None:
    parts = partition(np.array(labels), shards, alpha, seed)
    assert len(parts) == shards
    assert min(len(part) for part in parts) >= MIN_SAMPLES
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))


def test_too_many_peers_for_the_examples_are_refused() -> None:
    with pytest.raises(DataError, match="7 examples are too few for 2 peers"):
        partition(np.zeros(7, np.int64), 2, 0.5, 1)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="need the package 'scikit-learn'"):
        load(0)


@pytest.mark.parametrize(
    ("setting", "value"), [("alpha", 0.0), ("seed", -1), ("holdout", 1.0), ("holdout", 0.0)]
)
def test_wrong_setting_is_named(setting: str, value: float) -> None:
    with pytest.raises(PluginError, match=f"setting {setting}"):
        Digits(**{setting: value})  # type: ignore[arg-type]  # that is the point


def test_six_peers_learn_the_digits_together() -> None:
    curve = run_rounds(demo_manifest(PEERS, 15, 7, "numpy"))
    assert curve[-1] >= 0.95
    assert curve[0] < curve[-1]


def test_peers_that_miss_rounds_do_not_spoil_the_model() -> None:
    absent = [(number + late, number % 6) for number in (3, 6, 9, 12, 15) for late in (0, 1)]
    assert run_rounds(demo_manifest(PEERS, 15, 7, "numpy"), absent)[-1] >= 0.95


def test_torch_learns_the_digits_as_well() -> None:
    pytest.importorskip("torch", reason="the torch trainer is an extra that is not installed here")
    assert run_rounds(demo_manifest(PEERS, 15, 7, "torch"))[-1] >= 0.95


def test_one_machine_with_all_the_data_is_the_yardstick() -> None:
    assert 0.96 <= centralised_accuracy(15, 7, "numpy") <= 1.0
