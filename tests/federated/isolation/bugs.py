"""Everything that can be wrong with a plugin, as the settings of one: `bug` is done in the method `at`."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np

from federated.errors import DataError, TrainingStopped
from federated.manifest import PluginRef, TaskManifest
from federated.parameters import Parameters
from federated.plugin import Dataset, PeerContext, TaskPlugin, TrainContext, TrainResult
from federated.registry import GROUP, Registry
from tests.federated.lab import tiny_manifest


def endless_python() -> None:
    while True:
        pass


def endless_sleep() -> None:
    while True:
        time.sleep(60)


def endless_regex() -> None:
    re.match(r"(a+)+$", "a" * 64 + "b")  # exponential, and all of it with the interpreter's lock


def endless_power() -> None:
    print(len(str(7 ** (1 << 32))))


def endless_without_signals() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    endless_python()


def growing_list() -> None:
    kept: list[bytes] = []
    while True:
        kept.append(bytes(1 << 20))


def one_array() -> None:
    np.ones(10 << 27)  # 10 GiB


def shared_memory() -> None:
    kept = []  # shared: no limit of the process is about it
    while len(kept) < 300:
        kept.append(mmap.mmap(-1, 1 << 22))
        kept[-1].write(b"x" * (1 << 22))
    endless_sleep()


def recursion() -> None:
    recursion()


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def exit_hard() -> None:
    os._exit(3)


def exit_softly() -> None:
    sys.exit("enough")


def exit_from_a_thread() -> None:
    threading.Thread(target=os._exit, args=(4,)).start()
    endless_sleep()


def interrupt() -> None:
    raise KeyboardInterrupt("me")


def no_data() -> None:
    raise DataError("there are none")


def stopped() -> None:
    raise TrainingStopped("asked")


def no_memory() -> None:
    raise MemoryError("all gone")


def no_memory_of_torch() -> None:
    raise RuntimeError("[enforce fail at alloc.cpp:1] . can't allocate memory: you tried to allocate 1 byte")


def exception() -> None:
    raise LookupError("no\nsuch")


def own_exception() -> None:
    class Rude(BaseException):
        def __str__(self) -> str:
            raise RuntimeError

    raise Rude


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def close_everything() -> None:
    os.closerange(3, 1000)


def talk_to_the_peer() -> None:
    for descriptor in range(3, 1000):  # those of the peer have the numbers that they have there
        try:
            os.write(descriptor, b"\xff" * 100)
        except OSError:
            continue


def fork() -> None:
    os.fork()  # both of us go on


def fork_and_stay() -> None:
    if os.fork() == 0:
        endless_sleep()


def print_to_stdout() -> None:
    print('{"event": "round", "round": 99}', flush=True)
    os.write(1, b'{"event": "round", "round": 98}\n')


def read_stdin() -> None:
    assert not sys.stdin.read()


def change_directory() -> None:
    os.chdir("/")


def start_threads() -> None:
    for _ in range(3):
        threading.Thread(target=endless_sleep, daemon=True).start()


BUGS: dict[str, Callable[[], None]] = {
    name: value for name, value in list(globals().items()) if callable(value) and value.__module__ == __name__
}


class Buggy(TaskPlugin):
    """Pulls four numbers towards a point, 1 at the first member.

    The file `orders` has two words: a bug, and the method that it is in.
    """

    def __init__(self, *, orders: str) -> None:
        self.orders = Path(orders)
        self._misbehave("make")

    def _misbehave(self, where: str) -> None:
        bug, _, at = self.orders.read_text("ascii").partition(" ")
        if at == where:
            BUGS[bug]()

    def load(self, context: PeerContext) -> Dataset:
        self._misbehave("load")
        return Dataset(
            train=np.float32(context.index + 1),
            holdout=np.float32(context.index + 1),
            examples=1,
            profile={"cwd": str(Path.cwd())},
        )

    def init(self, seed: int) -> Parameters:
        self._misbehave("init")
        return {"w": np.zeros(4, np.float32)}

    def train(self, parameters: Parameters, data: Any, context: TrainContext) -> TrainResult:
        self._misbehave("train")
        context.should_stop()
        parameters["w"] += (data - parameters["w"]) / 2
        return TrainResult(parameters=parameters, examples=1, metrics={"pid": os.getpid()})

    def evaluate(self, parameters: Parameters, data: Any) -> dict[str, float]:
        self._misbehave("evaluate")
        return {"loss": float(np.abs(parameters["w"] - data).max())}


REGISTRY = Registry(
    installed=[
        EntryPoint("buggy", f"{__name__}:Buggy", GROUP),
        EntryPoint("weighted-mean", "plugins.aggregation.weighted_mean:WeightedMean", GROUP),
        EntryPoint("update-check", "plugins.validation.update_check:UpdateCheck", GROUP),
    ]
)


def buggy_task(orders: Path, **policy: Any) -> TaskManifest:
    """The task of one member, whose plugin reads the file `orders`."""
    ref = PluginRef(name="buggy", settings={"orders": str(orders)})
    return tiny_manifest(1, preprocessor=ref, trainer=ref, **policy)
