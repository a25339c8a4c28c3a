"""The DiLoCo benchmark, small: its rounds are those of a task, and seldom rounds learn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks.diloco import Run, accuracy, main, manifest


@pytest.mark.parametrize("way", ["DiLoCo", "mean"])
def test_workers_that_meet_seldom_learn_together(way: str) -> None:
    assert accuracy(Run(way, "alike", 30, 1, 60, 3)) > 70


def test_as_many_local_steps_are_made_however_many_rounds_there_are() -> None:
    for interval in (1, 10, 60):
        task = manifest(Run("DiLoCo", "alike", interval, 1, 60, 2))
        assert task.rounds * task.trainer.settings["steps"] == 60


def test_it_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "diloco.json"
    options = ["--seeds", "1", "--steps", "4", "--workers", "2", "--intervals", "2", "4"]
    assert main([*options, "--json", str(file), "--plot", str(tmp_path / "diloco.png")]) == 0
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert [(row["interval"], row["syncs"]) for row in rows] == [(2, 2), (4, 1)] * 6
    assert rows[8]["difference"] == 0  # the control itself
    assert (tmp_path / "diloco.png").stat().st_size > 1000
    assert "central" in capsys.readouterr().out
