from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated import codec
from federated.accountant import epsilon, rdp
from federated.errors import ManifestError, PluginError, StorageError
from federated.manifest import DifferentialPrivacy, parse_manifest
from federated.parameters import Parameters, l2_norm
from federated.plugin import ModelUpdate, PeerContext, TrainContext, TrainResult
from federated.privacy import BLOCK, Budget, Ledger, gaussian, privatise
from federated.workbench import Workbench, prepare
from p2p.files import FolderFiles
from sim.disk import SimDisk
from tests.federated import tiny
from tests.federated.lab import peer_number, tiny_manifest
from tests.federated.test_workbench import bench, item, never, with_trainer

TASK = bytes(range(32))
KEY = bytes(32)
POLICY = DifferentialPrivacy(clip=2.0, noise=4.0, delta=1e-5, epsilon=20.0)


def policy(**changes: float) -> DifferentialPrivacy:
    return DifferentialPrivacy(**{**POLICY.model_dump(), "epsilon": 1e300, **changes})


def delta(*values: float) -> Parameters:
    return {"w": np.array(values, np.float64)}


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), clip=st.floats(0.01, 100))
def test_a_delta_is_clipped_before_the_noise(values: list[float], clip: float) -> None:
    quiet = policy(clip=clip, noise=1e-6)
    made = privatise(delta(*values), quiet, KEY)["w"]
    norm = l2_norm(delta(*values))
    expected = np.array(values) * min(1.0, clip / norm if norm else 1.0)
    assert np.abs(made - expected).max() <= 1e-5 * clip
    assert l2_norm({"w": made}) <= clip * (1 + 1e-4)


def test_the_noise_is_normal_and_as_large_as_it_says() -> None:
    count = 3 * BLOCK + 1
    made = privatise({"w": np.zeros(count, np.float32)}, POLICY, KEY)["w"].astype(np.float64) / 8.0
    assert abs(made.mean()) < 5 / math.sqrt(count)
    assert made.var() == pytest.approx(1.0, abs=5 * math.sqrt(2 / count))
    for border in (0.5, 1.0, 2.0, 3.0):
        share = math.erfc(border / math.sqrt(2))
        assert (np.abs(made) > border).mean() == pytest.approx(share, abs=5 * math.sqrt(share / count))
    assert abs(np.corrcoef(made[:-1], made[1:])[0, 1]) < 5 / math.sqrt(count)


def test_blocks_of_a_draw_are_unlike_and_every_key_draws_another() -> None:
    draw, other = gaussian(KEY), gaussian(b"\x01" * 32)
    first, second = draw(7), draw(7)
    assert len(first) == len(second) == 7
    drawn = np.concatenate([first, second, other(7)])
    assert len(set(drawn.tolist())) == 21
    assert gaussian(KEY)(7).tolist() == first.tolist()
    with pytest.raises(ValueError, match="a key has 32 bytes, not 0"):
        gaussian(b"")


def test_the_last_bits_of_a_value_say_nothing() -> None:
    made = privatise({"w": np.linspace(-1, 1, 1000)}, POLICY, KEY)["w"]
    grid = 8.0 / 1024
    assert (made / grid == np.rint(made / grid)).all()


def test_every_tensor_keeps_its_shape_and_dtype() -> None:
    given_: Parameters = {
        "a": np.zeros((2, 3), np.float32),
        "b": np.zeros((), np.int64),
        "c": np.full(5000, 100, np.int8),
        "d": np.zeros((0, 4), np.float32),
    }
    made = privatise(given_, policy(clip=1e4, noise=10.0), KEY)
    assert codec.schema_of(made) == codec.schema_of(given_)
    assert made["c"].min() >= -64
    assert made["c"].max() <= 64
    assert not np.isnan(made["a"]).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_what_cannot_be_clipped_is_not_noised(value: float) -> None:
    with pytest.raises(PluginError, match=r"its update (of w is not finite|is too long to be clipped)$"):
        privatise(delta(1.0, value), POLICY, KEY)


# What it costs


def test_the_cost_is_of_data_sets_that_may_differ_in_everything() -> None:
    assert POLICY.cost(0) == 0.0
    assert POLICY.cost(3) == epsilon(rdp(2.0, times=3), 1e-5)  # two clipped deltas are 2 · clip apart
    assert POLICY.cost(3) < POLICY.cost(4)


def test_a_budget_that_no_update_fits_into_is_refused_with_what_to_change() -> None:
    manifest = tiny_manifest(3).model_dump(mode="json") | {
        "privacy": {"kind": "dp", "clip": 1.0, "noise": 0.5, "delta": 1e-5, "epsilon": 8.0}
    }
    line = (
        r"^privacy: one update costs an epsilon of 2\d\.\d, more than the 8 in all: raise noise or epsilon$"
    )
    with pytest.raises(ManifestError, match=line):
        parse_manifest(_json(manifest))


@pytest.mark.parametrize(
    ("field", "value"),
    [("clip", 0.0), ("noise", -1.0), ("delta", 1.0), ("delta", 0.0), ("epsilon", 0.0), ("kind", "secure")],
)
def test_a_policy_out_of_range_is_refused_by_its_field(field: str, value: object) -> None:
    manifest = tiny_manifest(3).model_dump(mode="json") | {"privacy": POLICY.model_dump() | {field: value}}
    with pytest.raises(ManifestError, match=rf"^privacy\.{field}: "):
        parse_manifest(_json(manifest))


def test_a_task_without_privacy_has_the_id_that_it_always_had() -> None:
    plain, private = tiny_manifest(3), tiny_manifest(3, privacy=POLICY)
    assert b"privacy" not in plain.canonical()
    assert parse_manifest(private.canonical()) == private
    assert len({plain.task_id, private.task_id, tiny_manifest(3, privacy=policy(noise=5.0)).task_id}) == 3


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


# Counted on disk


def test_what_was_spent_is_known_after_a_restart(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    ledger = Ledger(files, TASK)
    ledger.open()
    assert ledger.count == 0
    for _ in range(3):
        ledger.spend()
    again = Ledger(files, TASK)
    again.open()
    assert again.count == ledger.count == 3
    held = Ledger(None, TASK)
    held.open()
    held.spend()
    assert held.count == 1


def test_what_was_counted_survives_a_crash() -> None:
    disk = SimDisk(random.Random(1))
    ledger = Ledger(disk.mount(), TASK)
    ledger.spend()
    disk.crash()
    again = Ledger(disk.mount(), TASK)
    again.open()
    assert again.count == 1


def test_a_count_that_could_not_be_written_is_written_the_next_time(tmp_path: Path) -> None:
    disk = SimDisk(random.Random(1))
    ledger = Ledger(disk.mount().sub("task"), TASK)
    disk.full = True
    with pytest.raises(StorageError, match=r"/privacy: No space left"):
        ledger.spend()
    assert ledger.count == 0
    disk.full = False
    ledger.spend()
    assert ledger.count == 1


def test_a_damaged_count_is_refused_wherever_it_is_damaged(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    Ledger(files, TASK).spend()
    path = tmp_path / "privacy"
    whole = path.read_bytes()
    damaged = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    damaged += [whole[:at] for at in range(len(whole))] + [whole + b"\0"]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(StorageError, match=r"/privacy is damaged: what the updates so far gave away"):
            Ledger(files, TASK).open()
    path.write_bytes(whole)
    with pytest.raises(StorageError, match="is damaged"):
        Ledger(files, bytes(32)).open()


def test_a_budget_is_spent_when_one_update_more_would_be_over_it() -> None:
    ledger = Ledger(None, TASK)
    budget = Budget(POLICY, ledger)
    while not budget.is_spent:
        ledger.spend()
    assert POLICY.cost(ledger.count) <= 20.0 < POLICY.cost(ledger.count + 1)
    assert budget.report() == {
        "epsilon": POLICY.cost(ledger.count),
        "delta": 1e-5,
        "budget": 20.0,
        "updates": ledger.count,
    }


# At the workbench


def private_bench(trainer: str = "pull") -> Workbench:
    manifest = tiny_manifest(3, privacy=POLICY, trainer={"name": trainer})
    context = PeerContext(peer=peer_number(1), members=manifest.peer_ids, index=0)
    return prepare(manifest, tiny.registry().load(manifest), context)


def test_a_private_update_hides_what_it_stands_for() -> None:
    made = private_bench()
    base = made.decode(made.initial)
    updates = [made.train(base, 1, never, key=bytes([number]) * 32) for number in range(2)]
    assert [update.examples for update in updates] == [1, 1]
    assert updates[0].data != updates[1].data
    checked = made.check(item(updates[0].data), updates[0].data, base)
    assert isinstance(checked, ModelUpdate)
    plain = tiny.Pull().train(made.decode(made.initial), np.float32(0), context=None)  # type: ignore[arg-type]
    assert np.abs(checked.delta["w"] - (plain.parameters["w"] - base["w"])).max() > 0.1


def test_a_private_update_is_not_made_without_a_key_or_of_nan() -> None:
    made = private_bench()
    with pytest.raises(PluginError, match="a key has 32 bytes, not 0"):
        made.train(made.decode(made.initial), 1, never)
    with pytest.raises(PluginError, match="trainer 'nan': its update of w is not finite"):
        private_bench("nan").train(made.decode(made.initial), 1, never, key=KEY)


def test_a_trainer_gets_a_secret_that_says_nothing_of_the_key() -> None:
    secrets: list[bytes] = []

    class Spy(tiny.Pull):
        def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
            secrets.append(context.secret)
            return super().train(parameters, data, context)

    made = bench()
    with_trainer(made, Spy())
    for key in (KEY, b"\x01" * 32, b""):
        made.train(made.decode(made.initial), 1, never, key=key)
    assert [len(secret) for secret in secrets] == [32, 32, 0]
    assert len({KEY, b"\x01" * 32, *secrets}) == 5
