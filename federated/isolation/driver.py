"""A learner in a process of its own: `RemoteLearner`, which starts one when there is work and none is alive.

    idle ── call ──→ alive? ──no──→ back-off ──→ start, Prepare ──→ Ready
                       └─yes─→ request ──→ reply ──→ idle
                                  └── no answer: the process is ended, the call has failed

One call is in progress at a time. Every call has an end: a training when its caller has told it to stop and
it does not, everything else at a deadline. What lasts from call to call is in the peer, so a new process goes
on where the task is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from federated import codec
from federated.errors import CodecError, DataError, FederatedError, PluginError, TrainingStopped
from federated.isolation.limits import default_memory
from federated.isolation.process import PluginProcess, ProcessLost
from federated.isolation.restarts import Restarts
from federated.isolation.wire import (
    Evaluate,
    Failed,
    Measured,
    Prepare,
    Ready,
    Refresh,
    Refreshed,
    Reply,
    Request,
    Train,
    Trained,
)
from federated.learner import MEASURES, LocalUpdate
from federated.manifest import TaskManifest
from federated.pace import Pace
from federated.parameters import Parameters, schema_difference
from federated.plugin import PeerContext
from federated.registry import Registry
from federated.snapshots import max_state
from federated.workbench import Workbench, assemble

START_TIMEOUT = 300.0  # seconds to import, load the data and make the first model
MIN_GRACE, MAX_GRACE = 1.0, 10.0  # seconds to stop in, once that was asked for
GRACE_SHARE = 0.1  # of the time to train in, between them
CLOSE_GRACE = 1.0  # seconds for a call to see that its process is gone
MAX_UNMEASURED = 10  # two to this power is how many measurements are left out at most
SLACK = 1 << 20  # bytes of an answer beside its tensors: a profile, metrics, a line

FAILURES = {"plugin": PluginError, "data": DataError, "stopped": TrainingStopped}

R = TypeVar("R", bound=Reply)
ShouldStop = Callable[[], bool]
Left = Callable[[], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """Makes workbenches whose learners are processes of their own, with `memory` bytes each."""

    memory: int | None = None

    def open_bench(
        self, manifest: TaskManifest, registry: Registry, context: PeerContext, should_stop: ShouldStop
    ) -> Workbench:
        """As `federated.workbench.open_bench`; the caller closes it. Raises `DataError`, `PluginError`."""
        learner = RemoteLearner(manifest, registry, context, self.memory or default_memory())
        try:
            learner.start()  # it imports what it needs while we do
            plugins = registry.load_judging(manifest)
            learner.prepare(should_stop)
            bench = assemble(manifest, plugins, learner)
            if should_stop():
                raise TrainingStopped("nobody wants it any more")
            return bench
        except BaseException:
            learner.close()
            raise


class RemoteLearner:
    """A `Learner` whose plugins run in a process of their own."""

    paces_itself = True

    def __init__(self, manifest: TaskManifest, registry: Registry, context: PeerContext, memory: int) -> None:
        """Raises `PluginError` for plugins that cannot be had."""
        data_dir = None if context.data_dir is None else str(context.data_dir.absolute())
        self._manifest = manifest
        self._memory = memory
        self._request = Prepare(
            manifest=manifest.canonical(),
            plugins=registry.edge_points(manifest),
            peer=str(context.peer),
            members=tuple(str(member) for member in context.members),
            index=context.index,
            data_dir=data_dir,
        )
        model = manifest.max_model_bytes
        self._limit = model + manifest.max_update_bytes + max_state(model) + SLACK
        self._preprocessor = f"preprocessor {manifest.preprocessor.name!r}"
        self._trainer = f"trainer {manifest.trainer.name!r}"
        if manifest.preprocessor.name == manifest.trainer.name:
            self._preprocessor = self._trainer = f"task {manifest.trainer.name!r}"
        policy = manifest.policy
        self._grace = min(max(GRACE_SHARE * policy.train_deadline_s, MIN_GRACE), MAX_GRACE)
        self._measure_timeout = policy.phase_deadline_s
        self._refresh_timeout = policy.train_deadline_s
        self._calls = threading.Lock()  # held by the one call that is in progress
        self._process: PluginProcess | None = None
        self._ready: Ready | None = None
        self._closed = False
        self._restarts = Restarts()
        self._unmeasured = self._unmeasured_left = 0  # measurements that were lost in a row, and are left out
        self._untold: str | None = None
        self.initial: Parameters = {}

    @property
    def profile(self) -> Mapping[str, Any]:
        """As `Learner.profile`."""
        return {} if self._ready is None else self._ready.profile

    @property
    def refreshes(self) -> bool:
        """As `Learner.refreshes`."""
        return self._ready is not None and self._ready.refreshes

    @property
    def remembers(self) -> bool:
        """As `Learner.remembers`."""
        return self._ready is not None and self._ready.remembers

    @property
    def is_ready(self) -> bool:
        """As `Learner.is_ready`."""
        process = self._process
        return not self._calls.locked() and process is not None and process.is_alive

    def start(self) -> None:
        """Starts the process, unless it is there."""
        if self._process is None or not self._process.is_alive:
            self._drop()
            self._process = PluginProcess(self._memory, self._limit)

    def prepare(self, should_stop: ShouldStop) -> None:
        """Loads the data and makes the first model, for the first time. Raises `DataError`, `PluginError`."""
        with self._call():
            self._load(should_stop)

    def refresh(self) -> None:
        """As `Learner.refresh`."""
        with self._call():
            self._ask(self._revive(), Refresh(), Refreshed, _until(self._refresh_timeout))

    def train(
        self,
        parameters: Parameters,
        round_number: int,
        should_stop: ShouldStop,
        pace: Pace | None,
        state: Parameters,
        key: bytes,
    ) -> LocalUpdate:
        """As `Learner.train`. A training that does not stop within a grace period is ended."""
        with self._call():
            process = self._revive()
            if should_stop():
                raise TrainingStopped("the round has ended before the training began")
            request = Train(
                parameters=codec.encode(parameters),
                round=round_number,
                steps_per_second=0.0 if pace is None else pace.steps_per_second,
                state=codec.encode(state),
                key=key,
            )
            begin = time.monotonic()
            try:
                reply = self._ask(process, request, Trained, self._stopping(process, should_stop))
            except ProcessLost as exc:
                if should_stop():
                    self._untold = str(exc)  # whoever has asked it to stop hears no more of it
                raise
            finally:
                if pace is not None:
                    pace.observe(process.steps, time.monotonic() - begin)
            self._restarts.succeeded()
            return self._checked(reply.update)

    def evaluate(self, parameters: Parameters, state: Parameters) -> dict[str, float | None]:
        """As `Learner.evaluate`. After one that never ended some are left out, twice as many each time."""
        with self._call():
            if self._unmeasured_left:
                self._unmeasured_left -= 1
                return dict.fromkeys(MEASURES)
            process = self._revive()
            request = Evaluate(parameters=codec.encode(parameters), state=codec.encode(state))
            try:
                reply = self._ask(process, request, Measured, _until(self._measure_timeout))
            except ProcessLost:
                self._unmeasured += 1
                self._unmeasured_left = 2 ** min(self._unmeasured, MAX_UNMEASURED) - 1
                raise
            self._unmeasured = 0
            return dict(reply.measures)

    def complaint(self) -> str | None:
        """As `Learner.complaint`."""
        told, self._untold = self._untold, None
        return told

    def close(self) -> None:
        """As `Learner.close`."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()  # which ends the call in progress
        if self._calls.acquire(timeout=CLOSE_GRACE):
            self._drop()
            self._calls.release()

    # One call

    @contextmanager
    def _call(self) -> Iterator[None]:
        with self._calls:
            if self._closed:
                raise PluginError("the task is closed")
            yield

    def _revive(self) -> PluginProcess:
        """A process that has loaded, whatever became of the last one. Raises `PluginError`, `DataError`."""
        process = self._process
        if process is not None and process.is_alive:
            return process
        if process is not None:
            self._give_up()  # it ended between two calls
        seconds = self._restarts.wait(time.monotonic())
        if seconds:
            raise PluginError(f"the plugin process fails again and again; the next starts in {seconds:.0f} s")
        return self._load(never)

    def _load(self, should_stop: ShouldStop) -> PluginProcess:
        left = _until(START_TIMEOUT)
        self.start()
        assert self._process is not None
        process = self._process
        try:
            ready = self._ask(process, self._request, Ready, lambda: 0.0 if should_stop() else left())
            self._take(ready)
        except FederatedError:
            self._give_up()
            raise
        return process

    def _take(self, ready: Ready) -> None:
        """Keeps what a process said when it was ready; its model is the one of the first process."""
        try:
            initial = codec.decode_any(ready.initial, self._manifest.max_model_bytes)
        except CodecError as exc:
            raise PluginError(f"{self._trainer}: its first model: {exc}") from exc
        if self._ready is None:
            self.initial = initial
        problem = schema_difference(codec.schema_of(initial), codec.schema_of(self.initial))
        if problem is not None:
            raise PluginError(f"{self._trainer}: init makes another model than before: {problem}")
        self._ready = ready

    def _ask(self, process: PluginProcess, request: Request, wanted: type[R], left: Left) -> R:
        """The answer. Raises what the plugin raised, and `ProcessLost`."""
        try:
            reply = process.ask(request, left)
        except ProcessLost as exc:
            self._give_up()
            raise ProcessLost(f"{self._blamed(request)}: {exc}") from exc
        if isinstance(reply, Failed):
            if reply.ends:
                self._give_up()
            raise FAILURES[reply.kind](reply.reason)
        if not isinstance(reply, wanted):
            self._give_up()
            raise ProcessLost(f"{self._blamed(request)}: the plugin process answers another question")
        return reply

    def _blamed(self, request: Request) -> str:
        """Whose code runs at a request."""
        match request:
            case Prepare() if self._preprocessor != self._trainer:
                return f"{self._preprocessor} or {self._trainer}"
            case Refresh():
                return self._preprocessor
            case _:
                return self._trainer

    def _stopping(self, process: PluginProcess, should_stop: ShouldStop) -> Left:
        """How long a training has: for ever, until it was asked to stop."""
        end: float | None = None

        def left() -> float | None:
            nonlocal end
            if end is None and should_stop():
                process.stop()
                end = time.monotonic() + self._grace
            return None if end is None else end - time.monotonic()

        return left

    def _checked(self, update: LocalUpdate) -> LocalUpdate:
        sizes = {
            "an update": (len(update.data), self._manifest.max_update_bytes),
            "its state": (
                len(update.state or b""),
                max_state(codec.encoded_size(codec.schema_of(self.initial))),
            ),
        }
        for what, (size, limit) in sizes.items():
            if size > limit:
                raise PluginError(f"{self._trainer}: {what} has {size} bytes, more than {limit}")
        return update

    def _give_up(self) -> None:
        """Ends a process that has failed."""
        self._restarts.failed(time.monotonic())
        self._drop()

    def _drop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()


def never() -> bool:
    """A call that nobody stops."""
    return False


def _until(seconds: float) -> Left:
    end = time.monotonic() + seconds
    return lambda: end - time.monotonic()
