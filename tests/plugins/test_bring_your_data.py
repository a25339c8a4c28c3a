"""What docs/how-to/bring-your-data.md says, done by the members of tasks on an in-memory network."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trio.testing import MockClock

from federated.directory.signed import sign_task, task_file
from federated.errors import DataError
from federated.export import MODEL, export_folder, verify_export
from federated.manifest import PluginRef, TaskManifest
from federated.plugin import Preprocessor
from federated.registry import GROUP, Registry
from plugins.preprocessing.sources.csv_file import Csv
from plugins.preprocessing.sources.stream import Stream
from tests.documentation import ROOT
from tests.federated.lab import Lab, assert_agreed, open_lab, tiny_manifest
from tests.plugins.data import context, load, place, write
from tests.support import key_number

GUIDE = (ROOT / "docs" / "how-to" / "bring-your-data.md").read_text(encoding="utf-8")
MEMBERS = (1, 2, 3)
MLP = {"name": "numpy-mlp", "settings": {"inputs": 4, "classes": 2, "hidden": [], "epochs": 20}}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


[FLOWERS] = blocks("csv")
TABLE, MOMENTS, STANDARDISE, STREAM, READINGS = map(json.loads, blocks("json"))


def task(**changes: Any) -> TaskManifest:
    """A task of three members, with plugins as a manifest writes them."""
    kinds = ("preprocessor", "trainer", "aggregator", "validator")
    refs = {kind: PluginRef(**changes.pop(kind)) for kind in kinds if kind in changes}
    return tiny_manifest(len(MEMBERS), **refs, **changes)


def flowers(number: int, shift: float = 0.0) -> str:
    """The table of one member: the guide's, and fifty flowers more that only this one has."""
    generator = np.random.default_rng(number)
    lines = []
    for _ in range(50):
        blue = generator.random() < 0.5
        length, width = generator.normal((6.4 if blue else 5.0, 2.9 if blue else 3.4), 0.2) + shift
        lines.append(
            f"{length:.2f},{width:.2f},{'blue' if blue else 'white'},{'virginica' if blue else 'setosa'}"
        )
    return FLOWERS + "\n".join(lines) + "\n"


async def finish(lab: Lab) -> None:
    """Runs the task to its end at all members, with the plugins that are installed."""
    async with open_lab(lab) as nursery:
        for number in MEMBERS:
            await nursery.start(partial(lab.run, number, plugins=Registry()))
        await lab.until_finished(*MEMBERS)
    assert_agreed(lab, lab.manifest.rounds)


async def test_members_learn_from_tables_of_their_own(autojump_clock: MockClock, tmp_path: Path) -> None:
    for number in MEMBERS:
        write(tmp_path / str(number), "flowers.csv", flowers(number))
    lab = Lab(task(preprocessor=TABLE, trainer=MLP, rounds=3), tmp_path)
    await finish(lab)
    last = [lab.rounds(number)[3] for number in MEMBERS]
    assert [len(event["participants"]) for event in last] == [3, 3, 3]
    assert np.mean([event["accuracy"] for event in last]) >= 0.85  # one that is held out is odd


def test_what_is_missing_is_said_as_the_guide_says_it(tmp_path: Path) -> None:
    write(tmp_path, "flowers.csv", FLOWERS)
    settings = {**TABLE["settings"], "transforms": TABLE["settings"]["transforms"][1:], "holdout": 0.0}
    with pytest.raises(DataError) as caught:
        load(Csv(**settings), tmp_path)
    assert f"    {str(caught.value).removeprefix(f'{tmp_path}/')}\n" in GUIDE


async def test_members_agree_on_statistics_and_train_with_them(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    for number in MEMBERS:
        write(tmp_path / str(number), "flowers.csv", flowers(number, shift=number))
    lab = Lab(task(**MOMENTS), tmp_path)
    await finish(lab)
    # atcp task export
    folder = tmp_path / "1" / "tasks" / lab.manifest.task_id.hex()
    folder.with_suffix(".json").write_text(task_file(sign_task(lab.manifest, key_number(1))))
    export_folder(folder, tmp_path / "moments")
    assert verify_export(tmp_path / "moments").last.round == 2
    model = tmp_path / "moments" / MODEL
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    for number in MEMBERS:
        shutil.copy(model, place(tmp_path / str(number), STANDARDISE["file"]))
    # every member standardises by what all have
    impute, _, encode = TABLE["settings"]["transforms"]
    steps = [impute, {**STANDARDISE, "digest": digest}, encode]
    settings = {**TABLE["settings"], "transforms": steps}
    parts = [Csv(**settings).load(context(tmp_path / str(number))).train[0][:, :2] for number in MEMBERS]
    together = np.concatenate(parts)
    assert together.mean(axis=0) == pytest.approx([0, 0], abs=1e-4)
    assert together.std(axis=0) == pytest.approx([1, 1], abs=1e-4)
    assert parts[0].mean() < -0.5
    assert parts[2].mean() > 0.5


async def test_a_stream_is_trained_on_as_the_guide_says(tmp_path: Path) -> None:
    text = "load\n" + "".join(f"{250 + number % 7}\n" for number in range(200))
    write(tmp_path, "load.csv", text)
    assert STREAM["name"] == "stream"
    data = load(Stream(**STREAM["settings"]), tmp_path)
    x, y = data.train
    assert x.shape == (160 - 24, 24)
    assert y[0] == pytest.approx((250 + 24 % 7) / 500)
    assert data.holdout is not None


def test_the_plugins_of_the_guide_make_data(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {"__name__": __name__}
    for block in blocks("python"):
        exec(compile(block, "bring-your-data.md", "exec"), names)
    monkeypatch.setitem(globals(), "Readings", names["Readings"])
    registry = Registry(installed=[EntryPoint("readings", f"{__name__}:Readings", GROUP)])
    made = registry.create("preprocessor", PluginRef(**READINGS))
    data = made.load(context(None))
    assert data.train[0].shape[1] == 3
    assert data.examples > 35
    birds = names["Birds"]()
    assert isinstance(birds, Preprocessor)
    pytest.importorskip("torch", reason="torch is an extra that is not installed here")
    assert birds.load(context(None)).train[0].shape[1] == 16
