"""Data that arrive while a peer runs: taken up before the next training, and harmless when they are bad."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trio.testing import MockClock

from federated import codec
from federated.errors import DataError, PluginError
from federated.journal import CheckpointStore
from federated.manifest import PluginRef
from federated.parameters import TensorSpec
from federated.plugin import Dataset, PeerContext
from federated.registry import Registry
from federated.workbench import Workbench, prepare
from p2p.files import FolderFiles
from tests.federated import tiny
from tests.federated.lab import Lab, open_lab, tiny_manifest


class Growing(tiny.Points):
    """Has other data whenever it is asked, until it has none left; then it fails."""

    def __init__(self, *later: Any) -> None:
        self.later = list(later)

    def refresh(self, context: PeerContext, dataset: Dataset) -> Dataset | None:
        assert context.index == 0
        found = self.later.pop(0)
        if isinstance(found, Exception):
            raise found
        return replace(dataset, train=np.float32(found)) if isinstance(found, int) else found


def bench(preprocessor: tiny.Points) -> Workbench:
    manifest = tiny_manifest(1)
    plugins = replace(tiny.registry().load(manifest), preprocessor=preprocessor)
    peers = manifest.peer_ids
    return prepare(manifest, plugins, PeerContext(peer=peers[0], members=peers, index=0))


def point(made: Workbench) -> float:
    """What the trainer pulls to: twice the way that it goes."""
    base = made.decode(made.initial)
    schema = codec.schema_of(base)
    delta = codec.decode(made.train(base, 1, lambda: False).data, schema, 1000)
    return float(3 + 2 * delta["w"][0])


def test_data_that_came_since_are_trained_on() -> None:
    made = bench(Growing(7, None, 9))
    assert made.refreshes
    found = [point(made)]
    for _ in range(3):
        made.refresh()
        found.append(point(made))
    assert found == [0, 7, 7, 9]


def test_data_that_cannot_be_had_leave_the_old_ones() -> None:
    made = bench(Growing(DataError("line 3"), KeyError("x"), "no data"))
    with pytest.raises(DataError, match="line 3"):
        made.refresh()
    with pytest.raises(PluginError, match="preprocessor 'points' failed: KeyError: 'x'"):
        made.refresh()
    with pytest.raises(PluginError, match="preprocessor 'points': refresh returns a str, no Dataset"):
        made.refresh()
    assert point(made) == 0


def test_a_preprocessor_need_not_refresh() -> None:
    made = bench(tiny.Points())
    assert not made.refreshes
    made.refresh()
    assert point(made) == 0


async def test_lines_that_arrive_during_a_task_are_in_its_next_rounds(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    manifest = tiny_manifest(
        2,
        preprocessor=PluginRef(name="csv", settings={"path": "a.csv", "holdout": 0.0, "follow": True}),
        trainer=PluginRef(name="moments", settings={"inputs": 1}),
        rounds=6,
    )
    files = {number: tmp_path / str(number) / "data" / "a.csv" for number in (1, 2)}
    for file in files.values():
        file.parent.mkdir(parents=True)
        file.write_text("a\n10\n")
    lab = Lab(manifest, tmp_path)
    async with open_lab(lab) as nursery:
        for number in (1, 2):
            await nursery.start(partial(lab.run, number, plugins=Registry()))
        await lab.until_round(1, 1, 2)
        with files[1].open("a") as file:
            file.write("40\n")
        await lab.until_round(3, 1, 2)
        with files[2].open("a") as file:
            file.write("x\n")  # costs nothing but a line that says so
        await lab.until_finished(1, 2)
    assert mean(tmp_path / "1", lab) == [pytest.approx(20)]
    assert [len(lab.rounds(1)[number]["participants"]) for number in range(2, 7)] == [2] * 5
    told = [event["reason"] for event in lab.task_events(2) if "reason" in event]
    assert told
    assert "trains on the data of before: " in told[-1]
    assert told[-1].endswith(
        "a.csv, line 3: 'x' in column 'a' is no number; encode the column, or leave it out of columns"
    )
    assert lab.task_events(1)[0]["data"] == {
        "examples": 1,
        "held_out": 0,
        "missing": {},
        "ranges": {"a": [10.0, 10.0]},
    }


def mean(folder: Path, lab: Lab) -> list[float]:
    """What the last certified model says."""
    task = FolderFiles(folder).sub("tasks").sub(lab.manifest.task_id.hex())
    saved = CheckpointStore(task, 1000).load()
    assert saved is not None
    schema = tuple(TensorSpec(name, "float64", (1,)) for name in ("mean", "variance"))
    return codec.decode(saved.model, schema, 1000)["mean"].tolist()
