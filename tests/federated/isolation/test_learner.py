"""A learner in a process of its own, a real one, against every bug that a plugin may have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import psutil
import pytest

from federated import codec
from federated.errors import DataError, PluginError, TrainingStopped
from federated.isolation import process
from federated.isolation.driver import Isolation, RemoteLearner
from federated.isolation.process import PluginProcess
from federated.isolation.wire import Measured, Ready, Refresh, Refreshed, Reply, Request
from federated.learner import LocalUpdate
from federated.pace import Pace
from federated.plugin import PeerContext
from federated.snapshots import max_state
from federated.workbench import Workbench
from tests.federated.isolation import bugs
from tests.federated.isolation.bugs import buggy_task

MEMORY = 300 << 20  # bytes
LOST = "task 'buggy': the plugin process"
KILLED = f"{LOST} did not come to an end in time and was killed"


def never() -> bool:
    return False


def open_bench(orders: Path, should_stop: Callable[[], bool] = never) -> Workbench:
    manifest = buggy_task(orders)
    context = PeerContext(peer=manifest.peer_ids[0], members=manifest.peer_ids, index=0)
    return Isolation(memory=MEMORY).open_bench(manifest, bugs.REGISTRY, context, should_stop)


class Rig:
    """A workbench, and what its plugin is told to do."""

    def __init__(self, folder: Path) -> None:
        self.orders = folder / "orders"
        self.orders.write_text("")
        self.bench = open_bench(self.orders)
        self.base = self.bench.decode(self.bench.initial)

    @property
    def learner(self) -> RemoteLearner:
        learner = self.bench._learner
        assert isinstance(learner, RemoteLearner)
        return learner

    def train(self, should_stop: Callable[[], bool] = never, pace: Pace | None = None) -> int:
        """The process that did it."""
        update = self.bench.train(self.base, 1, should_stop, pace)
        checked = self.bench._packing.unpack(update.data)
        assert np.array_equal(checked["w"], np.full(4, 0.5, np.float32))
        pid = update.metrics["pid"]
        assert pid is not None
        return int(pid)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("rig"))
    yield rig
    rig.bench.close()


@pytest.fixture
def rig(shared: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """One learner for all tests: each begins and ends with a training that works."""
    monkeypatch.setattr(process, "WEIGH", 0.05)
    monkeypatch.setattr(process, "LAST_WORDS", 60.0)  # however busy the machine is
    shared.learner._grace = 0.2
    shared.train()
    yield shared
    shared.orders.write_text("")
    shared.train()


def is_gone(pid: int) -> bool:
    """Whether a process has ended; nobody may have asked for how."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    ("bug", "line"),
    [
        ("endless_regex", rf"^{KILLED} \(bugs\.py, line \d+\)$"),
        ("growing_list", r"MemoryError.* \(bugs\.py, line \d+\); a plugin process may have 300 MiB, see"),
        ("shared_memory", rf"^{LOST} took too much memory, \d+ of 300 MiB, and was killed; see --plugin-m"),
        ("close_everything", rf"^{LOST} ended with exit status 0$"),
        ("talk_to_the_peer", rf"^{LOST} answers what is no answer: \d+ bytes are over the limit"),
    ],
)
def test_a_bug_that_ends_the_process_costs_a_training(rig: Rig, bug: str, line: str) -> None:
    before = rig.train()
    rig.orders.write_text(f"{bug} train")
    asked = iter([False])
    with pytest.raises(PluginError, match=line):
        rig.train((lambda: next(asked, True)) if bug.startswith("endless") else never)
    assert is_gone(before)
    rig.orders.write_text("")
    assert rig.train() != before


@pytest.mark.parametrize(
    ("bug", "error", "line"),
    [
        ("exception", PluginError, r"^trainer 'buggy' failed: LookupError: no \(bugs\.py, line \d+\)$"),
        ("recursion", PluginError, r"^trainer 'buggy' failed: RecursionError: .* \(bugs\.py, line \d+\)$"),
        ("exit_softly", PluginError, r"^trainer 'buggy' failed: SystemExit: enough \(bugs\.py, line \d+\)$"),
        ("interrupt", PluginError, r"^a plugin failed: KeyboardInterrupt: me \(bugs\.py, line \d+\)$"),
        ("no_data", DataError, r"^trainer 'buggy': there are none \(bugs.py, line \d+\)$"),
        ("stopped", TrainingStopped, r"^asked$"),
    ],
)
def test_an_exception_costs_a_training_and_the_process_stays(
    rig: Rig, bug: str, error: type[Exception], line: str
) -> None:
    before = rig.train()
    rig.orders.write_text(f"{bug} train")
    with pytest.raises(error, match=line):
        rig.train()
    rig.orders.write_text("")
    assert rig.train() == before


@pytest.mark.parametrize("bug", ["fork", "fork_and_stay", "read_stdin", "change_directory", "start_threads"])
def test_what_a_plugin_does_to_its_process_is_nobody_elses_business(rig: Rig, bug: str) -> None:
    before, here = rig.train(), Path.cwd()
    rig.orders.write_text(f"{bug} train")
    assert rig.train() == before
    rig.orders.write_text("")
    assert rig.train() == before
    assert Path.cwd() == here


def test_what_a_plugin_prints_is_no_result_of_the_peer(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    rig.learner.close()
    rig.learner._closed = False
    rig.orders.write_text("print_to_stdout train")
    rig.train()
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == '{"event": "round", "round": 99}\n{"event": "round", "round": 98}\n'


def test_a_plugin_that_ignores_every_signal_is_ended_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LAST_WORDS", 0.2)
    rig.orders.write_text("endless_without_signals train")
    asked = iter([False])
    with pytest.raises(PluginError, match=rf"^{KILLED}"):
        rig.train(lambda: next(asked, True))


def test_a_process_that_ended_between_two_calls_is_started_again(rig: Rig) -> None:
    before = rig.train()
    os.kill(before, signal.SIGKILL)
    rig.learner._process._process.wait(60)  # type: ignore[union-attr]
    assert not rig.bench.is_ready
    assert rig.train() != before
    assert rig.bench.is_ready


def test_whoever_fails_again_and_again_waits(rig: Rig) -> None:
    rig.orders.write_text("exit_hard load")
    rig.learner._drop()
    with pytest.raises(PluginError, match=rf"^{LOST} ended with exit status 3$"):
        rig.train()
    for _ in range(20):
        rig.learner._restarts.failed(time.monotonic())
    with pytest.raises(
        PluginError, match=r"^the plugin process fails again and again; the next starts in \d+ s"
    ):
        rig.train()
    rig.learner._restarts.succeeded()


def test_a_training_that_nobody_waits_for_is_told_of_later(rig: Rig) -> None:
    rig.orders.write_text("exit_hard train")
    rig.learner._grace = 60.0  # it ends by itself, however busy the machine is
    asked = iter([False])  # when it begins; later nobody wants it any more
    with pytest.raises(PluginError):
        rig.train(lambda: next(asked, True))
    assert rig.bench.complaint() == f"{LOST} ended with exit status 3"
    assert rig.bench.complaint() is None


def test_a_training_of_a_round_that_is_over_is_not_begun(rig: Rig) -> None:
    with pytest.raises(TrainingStopped, match="before the training began"):
        rig.train(lambda: True)


def test_the_steps_in_the_process_tell_the_pace(rig: Rig) -> None:
    pace = Pace()
    rig.train(never, pace)
    assert pace.steps_per_second > 0
    pace = Pace()
    rig.orders.write_text("exception train")  # before the first step
    with pytest.raises(PluginError):
        rig.train(never, pace)
    assert pace.steps_per_second == 0


def test_a_measurement_that_does_not_end_costs_some_measurements(rig: Rig) -> None:
    assert rig.bench.evaluate(rig.base) == {"accuracy": None, "loss": 1.0}
    rig.orders.write_text("endless_regex evaluate")
    rig.learner._measure_timeout, timeout = 0.2, rig.learner._measure_timeout
    with pytest.raises(PluginError, match=rf"^{KILLED} \(bugs\.py, line \d+\)$"):
        rig.bench.evaluate(rig.base)
    rig.learner._measure_timeout = timeout
    rig.orders.write_text("")
    assert rig.bench.evaluate(rig.base) == {"accuracy": None, "loss": None}
    assert rig.bench.evaluate(rig.base) == {"accuracy": None, "loss": 1.0}


@pytest.mark.parametrize(
    ("initial", "line"),
    [
        (codec.encode({"w": np.zeros(5, np.float32)}), r"init makes another model than before: tensor w"),
        (b"nothing", "its first model: header"),
    ],
)
def test_another_model_than_before_is_none(rig: Rig, initial: bytes, line: str) -> None:
    ready = Ready(initial=initial, profile={}, refreshes=False, remembers=False)
    with pytest.raises(PluginError, match=f"^task 'buggy': {line}"):
        rig.learner._take(ready)


def test_an_answer_to_another_question_is_none(rig: Rig) -> None:
    class Confused:
        def ask(self, request: Request, left: object) -> Reply:
            return Refreshed()

    with pytest.raises(PluginError, match=rf"^{LOST} answers another question$"):
        rig.learner._ask(cast("PluginProcess", Confused()), Refresh(), Measured, lambda: None)


def test_an_update_over_the_limits_is_none(rig: Rig) -> None:
    limit = rig.learner._manifest.max_update_bytes
    with pytest.raises(PluginError, match=rf"^task 'buggy': an update has {limit + 1} bytes, more than"):
        rig.learner._checked(LocalUpdate(data=bytes(limit + 1), examples=1))
    state = bytes(max_state(len(rig.bench.initial)) + 1)
    with pytest.raises(PluginError, match=rf"^task 'buggy': its state has {len(state)} bytes, more than"):
        rig.learner._checked(LocalUpdate(data=b"", examples=1, state=state))


def test_data_are_refreshed_where_the_plugin_is(rig: Rig) -> None:
    before = rig.train()
    assert not rig.bench.refreshes
    rig.learner.refresh()
    assert rig.train() == before


def test_a_process_that_cannot_be_started_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr("subprocess.Popen", refuse)
    with pytest.raises(PluginError, match=r"^no plugin process can be started: no more processes$"):
        PluginProcess(MEMORY, 1 << 20)


@pytest.mark.parametrize(
    ("order", "error", "line"),
    [
        ("no_data load", DataError, r"^preprocessor 'buggy': there are none \(bugs.py, line \d+\)$"),
    ],
)
def test_a_task_whose_plugins_do_not_start_has_no_workbench(
    tmp_path: Path, order: str, error: type[Exception], line: str
) -> None:
    orders = tmp_path / "orders"
    orders.write_text(order)
    with pytest.raises(error, match=line):
        open_bench(orders)


def test_loading_ends_when_nobody_wants_it(tmp_path: Path) -> None:
    orders = tmp_path / "orders"
    orders.write_text("endless_regex load")
    asked = iter([False] * 20)
    with pytest.raises(PluginError, match=f"^{KILLED}"):
        open_bench(orders, lambda: next(asked, True))


def test_what_is_ready_too_late_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "orders").write_text("")
    wanted, take = [True], RemoteLearner._take

    def take_late(self: RemoteLearner, ready: Ready) -> None:
        take(self, ready)
        wanted[0] = False

    monkeypatch.setattr(RemoteLearner, "_take", take_late)
    with pytest.raises(TrainingStopped):
        open_bench(tmp_path / "orders", lambda: not wanted[0])


def test_closing_ends_the_call_in_progress_and_all_later_ones(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.orders.write_text("endless_regex train")
    errors: list[Exception] = []

    def train() -> None:
        try:
            rig.train()
        except PluginError as exc:
            errors.append(exc)

    thread = threading.Thread(target=train)
    thread.start()
    while not rig.learner._calls.locked():
        pass
    assert not rig.bench.is_ready
    rig.bench.close()
    thread.join(60)
    assert [str(error) for error in errors] == [
        f"{LOST} was killed from outside: the machine may have run out of memory"
    ]
    with pytest.raises(PluginError, match=r"^the task is closed$"):
        rig.train()
    rig.bench.close()


PEER = """
import sys, time
from pathlib import Path
from tests.federated.isolation.test_learner import Rig
rig = Rig(Path(sys.argv[1]))
print(rig.train(), flush=True)
rig.orders.write_text("fork_and_stay train")
rig.train()
rig.orders.write_text("endless_regex train")
rig.train()
"""


def test_a_peer_that_is_killed_takes_its_plugins_along(tmp_path: Path) -> None:
    peer = subprocess.Popen([sys.executable, "-c", PEER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert peer.stdout is not None
    child = psutil.Process(int(peer.stdout.readline()))
    while not (stayed := child.children()):
        pass
    peer.kill()
    peer.wait()
    peer.stdout.close()
    for member in (child, *stayed):
        while not is_gone(member.pid):
            pass
