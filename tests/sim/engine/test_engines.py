"""Where jobs are done: real processes, and a Ray that is none."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from p2p.errors import InvalidInput
from sim.engine.engines import ProcessEngine, RayEngine, WorkerDied, make_engine
from sim.engine.jobs import encode_job, failed_result, failures, run_job
from sim.scenario.model import Scenario


def tell(job: str) -> str:
    """The job, where it is done."""
    return json.dumps([job, os.getpid(), os.environ.get("PYTHONHASHSEED")])


def die(job: str) -> str:
    """A worker that is killed, by the system when memory runs out."""
    os.kill(os.getpid(), 9)
    return job


def sleep(job: str) -> str:
    """Longer than anybody waits."""
    time.sleep(1000)
    return job


def scenario(peers: int) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "test",
            "rung": "cores",
            "peers": peers,
            "settle": 2,
            "topology": {"degree": 3},
            "gossip": [{"start": 2, "seconds": 2}],
        }
    )


def traces(engine: Any) -> list[str]:
    with engine:
        jobs = [encode_job(scenario(peers), 1) for peers in (3, 5)]
        results = {number: json.loads(answer) for number, answer in engine.run(run_job, jobs)}
    assert [failures(results[number]) for number in range(2)] == [[], []]
    return [results[number]["trace_hash"] for number in range(2)]


def test_each_job_has_a_process_of_its_own() -> None:
    with make_engine("processes", 1) as engine:
        answers = [json.loads(answer) for _, answer in engine.run(tell, ["one", "other"])]
    assert [answer[0] for answer in answers] == ["one", "other"]
    assert len({os.getpid(), *(answer[1] for answer in answers)}) == 3


def test_workers_have_the_hash_seed_that_is_asked_for_and_we_keep_ours() -> None:
    before = os.environ.get("PYTHONHASHSEED")
    with ProcessEngine(1, 7) as engine:
        [(number, answer)] = engine.run(tell, ["job"])
    assert (number, json.loads(answer)[2:]) == (0, ["7"])
    assert os.environ.get("PYTHONHASHSEED") == before


def test_a_worker_that_is_killed_ends_the_sweep() -> None:
    with pytest.raises(WorkerDied, match="a worker process died"), make_engine("processes", 1) as engine:
        list(engine.run(die, ["one", "other"]))


def test_a_worker_that_is_killed_ends_whoever_waits_for_its_job() -> None:
    with pytest.raises(WorkerDied), ProcessEngine(1) as engine:
        engine.submit(die, "job").result()


def test_nobody_waits_for_workers_when_the_sweep_is_interrupted() -> None:
    before = sorted(str(child.pid) for child in multiprocessing.active_children())
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), ProcessEngine(1) as engine:
        engine.submit(sleep, "job")
        raise KeyboardInterrupt
    assert time.monotonic() - started < 20
    assert sorted(str(child.pid) for child in multiprocessing.active_children()) == before


class FakeRay(ModuleType):
    """As much of ray as is used: jobs are done here, when somebody waits for them."""

    class RayError(Exception):
        """As ray.exceptions has it."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.exceptions = SimpleNamespace(RayError=self.RayError)
        self.started: dict[str, Any] = {}
        self.shut_down = False

    def init(self, **settings: Any) -> None:
        self.started = settings

    def shutdown(self) -> None:
        self.shut_down = True

    def remote(self, **settings: Any) -> Callable[[Any], SimpleNamespace]:
        assert settings == {"max_calls": 1, "max_retries": 0}
        return lambda work: SimpleNamespace(remote=lambda job: _Reference(work, job))

    def wait(self, references: list[_Reference]) -> tuple[list[_Reference], list[_Reference]]:
        return references[-1:], references[:-1]

    def get(self, reference: _Reference) -> Any:
        if reference.job == "die":
            raise self.RayError
        return reference.work(reference.job)


class _Reference:
    def __init__(self, work: Callable[[str], str], job: str) -> None:
        self.work, self.job = work, job


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield fake
    assert fake.shut_down


def test_ray_gives_the_same_traces_as_processes(ray: FakeRay) -> None:
    assert traces(make_engine("ray", 2)) == traces(make_engine("processes", 2))
    assert ray.started["num_cpus"] == 2


def test_a_cluster_that_is_there_is_used(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with RayEngine(2) as engine:
        assert list(engine.run(str.upper, ["a", "b"])) == [(1, "B"), (0, "A")]
    assert "num_cpus" not in ray.started


def test_a_worker_of_ray_that_dies_ends_the_sweep(ray: FakeRay) -> None:
    with pytest.raises(WorkerDied), RayEngine(1) as engine:
        list(engine.run(str.upper, ["a", "die"]))
    assert ray.started


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidInput, match=r"pip install 'atcp\[ray\]'"), make_engine("ray", 1):
        pass


def test_a_result_of_no_run_has_the_form_of_the_others(tmp_path: Path) -> None:
    failed = failed_result(scenario(3), 1, "why")
    ran = json.loads(run_job(encode_job(scenario(3), 1)))
    assert set(failed) - {"error"} <= set(ran)
    assert failures(failed) == ["why"]
    assert (failed["virtual_seconds"], failed["trace_hash"]) == (None, "")
