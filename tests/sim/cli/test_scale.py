"""`scale`: a table, a plot, and what is left when a worker dies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

import sim.cli.scale
from sim.engine.engines import WorkerDied
from sim.engine.jobs import run_job
from tests.sim.cli.support import HOPELESS, call, lines, write


class Here:
    """An engine without processes, which loses its worker after `alive` jobs."""

    def __init__(self, alive: int = 100) -> None:
        self.alive = alive

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, work: Callable[[str], str], jobs: Sequence[str]) -> Iterator[tuple[int, str]]:
        for number, job in reversed(list(enumerate(jobs))):  # the order of their end is any
            if self.alive == 0:
                raise WorkerDied
            self.alive -= 1
            yield number, work(job)


def use(monkeypatch: pytest.MonkeyPatch, engine: Here) -> None:
    monkeypatch.setattr(sim.cli.scale, "make_engine", lambda name, workers: engine)


def test_a_scaling_test_writes_a_table_and_a_plot(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("scale", write(tmp_path), "--peers", "5,3", "--out", str(tmp_path / "runs"), "--workers", "2")
    status, out, err = call(capfd, *words)
    [folder] = (tmp_path / "runs").iterdir()
    assert (status, err) == (0, "")
    assert {path.name for path in folder.iterdir()} == {"scale.json", "scale.svg"}
    head, *rows, last = out.splitlines()
    assert head.split()[:3] == ["peers", "rung", "start-up"]
    assert [row.split()[:2] for row in rows] == [["5", "cores"], ["3", "cores"]]
    assert all(row.rstrip().endswith("yes") for row in rows)
    assert last == f"report {folder}"
    assert "virtual seconds" in (folder / "scale.svg").read_text()
    assert [size["peers"] for size in json.loads((folder / "scale.json").read_text())] == [5, 3]


def test_sizes_come_as_they_end_and_the_result_in_order(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Here())
    words = ("scale", write(tmp_path), "--peers", "3,4", "--json", "--no-report", "--seed", "5")
    status, out, _ = call(capfd, *words)
    *sizes, result = lines(out)
    assert [(size["event"], size["peers"]) for size in sizes] == [("size", 4), ("size", 3)]
    assert (status, result["event"], result["passed"], result["report"]) == (0, "result", True, None)
    assert [(size["peers"], size["seed"]) for size in result["sizes"]] == [(3, 5), (4, 5)]


def test_what_does_not_hold_is_told_for_each_size(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Here())
    status, out, err = call(capfd, "scale", write(tmp_path, HOPELESS), "--peers", "3,4", "--no-report")
    assert status == 1
    assert out.count("NO") == 2
    assert [line.split(":")[1:3] for line in err.splitlines()] == [
        [" 3 peers", " did not hold"],
        [" 4 peers", " did not hold"],
    ]


def test_the_sizes_before_a_worker_died_are_in_the_table(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Here(alive=2))
    words = ("scale", write(tmp_path), "--peers", "5,3,4", "--out", str(tmp_path / "runs"))
    status, out, err = call(capfd, *words)
    assert status == 1
    assert [row.split()[-1] for row in out.splitlines()[1:4]] == ["NO", "yes", "yes"]
    died = "a worker process died: it was killed, or the memory was not enough"
    assert err == f"sim: 5 peers: did not hold: {died}\n"


def test_a_folder_that_cannot_be_written_is_one_line_and_status_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Here())
    path = write(tmp_path)
    status, out, err = call(capfd, "scale", path, "--peers", "3", "--out", path)
    assert (status, out) == (2, "")
    assert err.startswith(f"sim: cannot write to {path}/scale-small-3-")


def test_a_job_that_fails_is_a_result_with_its_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("sim.run.make_rung", bug)
    use(monkeypatch, Here())
    assert run_job.__module__ == "sim.engine.jobs"  # a name that other processes find
    words = ("scale", write(tmp_path), "--peers", "3", "--no-report")
    status, _, err = call(capfd, *words)
    assert (status, err) == (1, "sim: 3 peers: did not hold: ZeroDivisionError: by zero\n")
