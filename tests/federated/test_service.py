from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import trio

from federated.control import ControlError, call
from federated.directory.head import decode_head, round_of
from federated.directory.signed import sign_task, task_file
from federated.directory.validators import head_key
from federated.export import MODEL, verify_export
from federated.invitation import make_invitation
from federated.isolation.driver import Isolation
from federated.manifest import ByInvitation, ByWork, TaskManifest
from federated.registry import Registry
from federated.reports import Report
from federated.service import TaskService
from federated.tasks import JOINED
from federated.workbench import open_bench
from p2p.blobs import BlobStore, open_blobs
from p2p.errors import InvalidInput
from p2p.gossipsub import open_gossipsub
from p2p.host import Host
from p2p.kad import DEFAULT_VALIDATORS, Kad, open_kad, provider_key
from p2p.kad.records import RecordStore
from p2p.kad.wire import Record
from p2p.overlay import Overlay
from p2p.transport import MemoryNetwork
from tests.federated import tiny
from tests.federated.lab import peer_number, tiny_manifest
from tests.support import key_number, open_memory_host

LIMIT = 150.0  # seconds for a whole test


def write_task(folder: Path, **changes: Any) -> Path:
    """A manifest of real plugins for the members 1 to 3, in a file."""
    values: dict[str, Any] = {
        "name": "digits",
        "seed": 1,
        "rounds": 2,
        "members": [str(peer_number(number)) for number in (1, 2, 3)],
        "preprocessor": {"name": "digits"},
        "trainer": {"name": "numpy-mlp", "settings": {"hidden": [8], "epochs": 1}},
        "aggregator": {"name": "weighted-mean"},
        "validator": {"name": "update-check"},
    }
    path = folder / "task.json"
    path.write_text(json.dumps({**values, **changes}))
    return path


def test_the_service_is_found_by_its_name() -> None:
    [found] = entry_points(group="p2p.services", name="task")
    assert found.load() is TaskService


@pytest.mark.parametrize(
    ("changes", "plugins", "line"),
    [
        ({"rounds": 0}, [], r"^--task: task file .*/task.json: rounds: "),
        ({"members": ["nobody"]}, [], r"members: not a peer id: 'nobody'"),
        ({"trainer": {"name": "nothing"}}, [], r"^--task: no trainer 'nothing' is installed; there are: "),
        ({"validator": {"name": "update-check", "settings": {"depth": 3}}}, [], r"'update-check': .*depth"),
        ({}, ["digits", "numpy-mlp", "weighted-mean"], r"plugin 'update-check' is not enabled here"),
        ({}, ["nothing"], r"^--task: no plugin 'nothing' is installed"),
        ({"members": ["QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"]}, [], r"cannot vote"),
    ],
)
def test_what_is_wrong_with_a_task_is_said_in_one_line(
    changes: dict[str, Any], plugins: Sequence[str], line: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=line) as caught:
        TaskService([str(write_task(tmp_path, **changes))], plugins)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot read task file .*/none.json: No such file"):
        TaskService([str(tmp_path / "none.json")], [])


class Peer:
    """A peer with the service, and what it has reported."""

    def __init__(self, number: int, folder: Path, host: Host, kad: Kad) -> None:
        self.number = number
        self.kad = kad
        self.folder = folder
        self.host = host
        self.reports: list[Report] = []
        self._news = trio.Event()

    def report(self, event: Report) -> None:
        self.reports.append(event)
        self._news.set()

    async def until(self, **wanted: Any) -> Report:
        """The first event with these fields, once it was reported; a test that waits too long shows all."""
        try:
            return await self._until(wanted)
        except trio.Cancelled:
            print(f"peer {self.number} waited for {wanted}, there is only {self.reports}")
            raise

    async def _until(self, wanted: dict[str, Any]) -> Report:
        while True:
            for event in self.reports:
                if all(event.get(name) == value for name, value in wanted.items()):
                    return event
            self._news = trio.Event()
            await self._news.wait()


class Net:
    """Peers with the service on one network, each connected to all others; started and stopped by number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._network = MemoryNetwork()
        self._peers: dict[int, Peer] = {}

    @asynccontextmanager
    async def peer(
        self, number: int, *tasks: object, registry: Registry | None = None
    ) -> AsyncIterator[Peer]:
        """Peer `number` with these tasks, while the body runs."""
        service = TaskService([str(task) for task in tasks], registry=registry)
        folder = self._folder / str(number)
        folder.mkdir(exist_ok=True)
        async with AsyncExitStack() as stack:
            host = await stack.enter_async_context(open_memory_host(self._network, number))
            pubsub = await stack.enter_async_context(open_gossipsub(host))
            validators = {**DEFAULT_VALIDATORS, **service.validators()}
            kad = await stack.enter_async_context(open_kad(host, validators=validators))
            blobs = await stack.enter_async_context(open_blobs(host, BlobStore(None, 1 << 24)))
            overlay = Overlay(host=host, pubsub=pubsub, kad=kad, blobs=blobs)
            peer = Peer(number, folder, host, kad)
            for other in self._peers.values():
                await host.connect(other.host.peer_id, other.host.addresses())
            await stack.enter_async_context(service.open(overlay, folder, peer.report))
            self._peers[number] = peer
            try:
                yield peer
            finally:
                del self._peers[number]

    @asynccontextmanager
    async def peers(self, count: int, *tasks: object) -> AsyncIterator[list[Peer]]:
        """Peers 1 to `count`, all with these tasks."""
        async with AsyncExitStack() as stack:
            numbers = range(1, count + 1)
            yield [await stack.enter_async_context(self.peer(number, *tasks)) for number in numbers]


@pytest.fixture
def tiny_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks find the plugins of the tests."""
    monkeypatch.setattr("federated.registry.Registry", lambda allowed=None: tiny.registry())


@pytest.fixture(autouse=True)
def plugins_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in processes of its own takes longer; tests/federated/isolation/ is about that."""
    monkeypatch.setattr(Isolation, "open_bench", lambda _, *args: open_bench(*args))


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[Net]:
    with trio.fail_after(LIMIT):
        yield Net(tmp_path)


def signed_file(folder: Path, manifest: TaskManifest) -> Path:
    path = folder / f"{manifest.name}.json"
    path.write_text(task_file(sign_task(manifest, key_number(1))))
    return path


async def test_plugins_are_found_in_the_registry_that_is_given(net: Net, tmp_path: Path) -> None:
    task = signed_file(tmp_path, tiny_manifest(1, rounds=1))
    with pytest.raises(InvalidInput, match="'points'"):
        TaskService([str(task)])
    async with net.peer(1, task, registry=tiny.registry()) as peer:
        await peer.until(event="task", state="finished")


async def test_a_peer_that_is_no_member_is_refused_and_lives_on(net: Net, tmp_path: Path) -> None:
    async with net.peer(4, write_task(tmp_path)) as peer:
        event = await peer.until(event="task", state="refused")
        assert event["reason"] == f"{peer_number(4)} is not among the members"
        [task] = (await call(peer.folder, "status"))["tasks"]
        assert (task["state"], task["reason"]) == ("refused", event["reason"])
    assert not (peer.folder / "tasks").exists()


async def test_a_task_whose_trainer_does_not_take_its_settings_is_refused(net: Net, tmp_path: Path) -> None:
    trainer = {"name": "numpy-mlp", "settings": {"depth": 3}}
    task = write_task(tmp_path, members=[str(peer_number(1))], trainer=trainer)
    async with net.peer(1, task) as peer:
        event = await peer.until(event="task", state="refused")
        assert re.match("plugin 'numpy-mlp': .*depth", event["reason"])


async def test_a_task_without_its_data_is_refused_and_the_others_go_on(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks on one peer: scikit-learn is missing, which only one of them needs."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    (tmp_path / "one").mkdir()
    members = [str(peer_number(1))]
    broken = write_task(tmp_path / "one", members=members)
    healthy = write_task(tmp_path, members=members, name="npz", preprocessor={"name": "npz"})
    write_data(tmp_path / "1")
    async with net.peer(1, broken, healthy) as peer:
        event = await peer.until(event="task", state="refused")
        assert "scikit-learn" in event["reason"]
        await peer.until(event="task", name="npz", state="finished")
        states = {task["name"]: task["state"] for task in (await call(peer.folder, "status"))["tasks"]}
        assert states == {"digits": "refused", "npz": "finished"}


def write_data(folder: Path) -> None:
    """What the preprocessor `npz` reads."""
    import numpy as np

    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 64)).astype(np.float32), rng.integers(0, 10, 40)
    np.savez(folder / "train.npz", x=x, y=y, holdout_x=x, holdout_y=y)


async def test_three_peers_train_on_digits_in_threads_and_agree(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: dict[bytes, trio.Event]
) -> None:
    """Real plugins, real threads, real files: two rounds of it, and an export that holds."""
    monkeypatch.setattr("federated.directory.driver.HEAD_INTERVAL", 0.2)
    path = write_task(tmp_path)
    async with net.peers(3, path) as peers:
        for peer in peers:
            await peer.until(event="task", state="finished")
        rounds = [[event for event in peer.reports if event["event"] == "round"] for peer in peers]
        assert [len(events) for events in rounds] == [2, 2, 2]
        for first, *others in zip(*rounds, strict=True):
            assert all(other["digest"] == first["digest"] for other in others)
            assert not first["skipped"]
            assert 0.05 < first["accuracy"] <= 1
            assert first["loss"] > 0
        [task] = (await call(peers[0].folder, "status"))["tasks"]
        assert (task["round"], task["rounds"], task["state"]) == (2, 2, "finished")
        assert task["certificate"]["digest"] == rounds[0][1]["digest"]
        assert task["disk_bytes"] > 0
        key = head_key(bytes.fromhex(task["task"]))
        await stored[key].wait()
        head = decode_head(await peers[0].kad.get_value(key))
        assert (head.certificate.round, len(head.voters)) == (2, 3)
        out = tmp_path / "model"
        await call(peers[1].folder, "export", task="digits", out=str(out))
    found = verify_export(out)
    assert found.last.block.model.digest.hex() == rounds[0][1]["digest"]
    assert (out / MODEL).stat().st_size == found.last.block.model.size


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, trio.Event]:
    """By the key of a head in the DHT: set once some peer holds the certificate of round 2 under it."""
    events: dict[bytes, trio.Event] = defaultdict(trio.Event)
    put = RecordStore.put

    def watch(self: RecordStore, record: Record, *rest: Any) -> None:
        put(self, record, *rest)
        if record.key.startswith(b"/atcp-head/") and round_of(record.value) == 2:
            events[record.key].set()

    monkeypatch.setattr(RecordStore, "put", watch)
    return events


async def test_two_tasks_at_once_and_one_is_found_by_its_id(
    net: Net, tmp_path: Path, tiny_plugins: None
) -> None:
    """Peers 1 and 2 have the files; peer 3 knows one file and the id of the other task."""
    one, two = tiny_manifest(3, name="one", rounds=2), tiny_manifest(3, name="two", rounds=3, seed=9)
    files = [signed_file(tmp_path, manifest) for manifest in (one, two)]
    async with net.peers(2, *files) as peers, net.peer(3, files[0], two.task_id.hex()) as third:
        for peer in (*peers, third):
            for name in ("one", "two"):
                await peer.until(event="task", name=name, state="finished")
        listed = await call(third.folder, "list")
        assert {(task["name"], task["joined"]) for task in listed} == {("one", True), ("two", True)}
        digests = {
            (event["task"], event["round"], event["digest"])
            for peer in (*peers, third)
            for event in peer.reports
            if event["event"] == "round"
        }
        assert len(digests) == 2 + 3


async def test_a_task_that_nobody_knows_is_looked_for_and_said_so(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federated.directory.driver.FIND_TIMEOUT", 0.05)
    monkeypatch.setattr("federated.desk.SEEK_PAUSE", 0.05)
    async with net.peer(1, "ab" * 32) as peer:
        event = await peer.until(event="task", state="searching")
        assert "nobody knows the task" in event["reason"]
        with pytest.raises(ControlError, match="nobody knows the task"):
            await call(peer.folder, "join", task="cd" * 32)
        assert (await call(peer.folder, "status"))["tasks"] == []


async def test_one_task_too_many_is_refused(
    net: Net, tmp_path: Path, tiny_plugins: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federated.tasks.MAX_TASKS", 1)
    one, two = tiny_manifest(2, name="one"), tiny_manifest(2, name="two")
    files = [signed_file(tmp_path, manifest) for manifest in (one, two)]
    async with net.peer(1, files[0]) as first, net.peer(2, files[1], one.task_id.hex()) as second:
        assert (await second.until(event="task", task=one.task_id.hex(), state="refused"))["reason"] == (
            "this peer takes part in 1 tasks; leave one first"
        )
        with pytest.raises(ControlError, match="leave one first"):
            await call(first.folder, "join", file=files[1].read_text())
        await call(first.folder, "join", file=files[0].read_text())  # it does already


async def test_who_is_not_let_in_yet_just_goes(net: Net, tmp_path: Path, tiny_plugins: None) -> None:
    manifest = tiny_manifest(3, admission=ByWork(kind="work", bits=8), max_members=8)
    path = signed_file(tmp_path, manifest)
    async with net.peer(9, path) as stranger:
        await stranger.until(event="task", state="joining")
        assert (await call(stranger.folder, "leave", task="tiny"))["state"] == "left"


async def test_a_task_is_joined_by_command_and_again_after_a_restart(
    net: Net, tmp_path: Path, tiny_plugins: None
) -> None:
    manifest = tiny_manifest(2, rounds=2)
    text = signed_file(tmp_path, manifest).read_text()
    async with net.peer(1) as one:
        async with net.peer(2) as two:
            for peer in (one, two):
                answer = await call(peer.folder, "join", file=text)
                assert answer == {"task": manifest.task_id.hex(), "name": "tiny", "state": "joining"}
            await two.until(event="task", state="finished")
        async with net.peer(2) as two:
            await two.until(event="task", state="finished")
            [task] = (await call(two.folder, "status", task="tiny"))["tasks"]
            assert (task["round"], task["certificate"]["round"]) == (2, 2)


async def test_a_member_leaves_and_the_others_certify_it(
    net: Net, tmp_path: Path, tiny_plugins: None
) -> None:
    manifest = tiny_manifest(4, rounds=200)
    path = signed_file(tmp_path, manifest)
    async with net.peers(4) as peers:
        for peer in peers:
            await call(peer.folder, "join", file=path.read_text())
        await peers[0].until(event="round", round=1)
        answer = await call(peers[3].folder, "leave", task="tiny")
        assert answer == {"task": manifest.task_id.hex(), "state": "left"}
        assert not [*peers[3].folder.glob(f"tasks/*{JOINED}")]
        event = await peers[0].until(event="membership", change="leave")
        assert event["peer"] == str(peers[3].host.peer_id)
        [task] = (await call(peers[0].folder, "status"))["tasks"]
        assert task["members"][str(peers[3].host.peer_id)] == "left"
        [task] = (await call(peers[3].folder, "status"))["tasks"]
        assert task["state"] == "left"


async def test_who_is_alone_just_leaves(net: Net, tmp_path: Path, tiny_plugins: None) -> None:
    path = signed_file(tmp_path, tiny_manifest(1, rounds=2))
    async with net.peer(1, path) as peer:
        await peer.until(event="task", state="finished")
        assert (await call(peer.folder, "leave", task="tiny"))["state"] == "left"
        await call(peer.folder, "join", file=path.read_text())  # and may come back
        await peer.until(event="task", state="left")


async def test_a_fifth_comes_in_by_an_invitation(net: Net, tmp_path: Path, tiny_plugins: None) -> None:
    issuer = str(peer_number(1))
    manifest = tiny_manifest(
        3, rounds=200, admission=ByInvitation(kind="invitation", issuers=[issuer]), max_members=8
    )
    path = signed_file(tmp_path, manifest)
    line = make_invitation(key_number(1), manifest.task_id, 200, bytes(range(32))).text
    async with net.peers(3, path) as peers, net.peer(9) as newcomer:
        await peers[0].until(event="round", round=1)
        await call(newcomer.folder, "join", task=manifest.task_id.hex(), invitation=line)
        event = await peers[0].until(event="membership", change="join")
        assert event["peer"] == str(newcomer.host.peer_id)
        await newcomer.until(event="task", state="joined")
        with pytest.raises(ControlError, match="for another task"):
            other = make_invitation(key_number(1), bytes(32), 200, bytes(range(32))).text
            await call(newcomer.folder, "join", file=path.read_text(), invitation=other)


async def test_a_folder_that_cannot_be_read_is_passed_over_at_the_start(
    net: Net, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "1" / "tasks"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / name).with_suffix(JOINED).write_text("")
    (folder / "a.json").write_bytes(tiny_manifest(1).canonical())
    async with net.peer(1) as peer:
        assert (await call(peer.folder, "status"))["tasks"] == []
    assert caplog.text.count("is not taken up again") == 2


@pytest.mark.parametrize(
    ("command", "arguments", "line"),
    [
        ("status", {"task": "x"}, "takes part in no task x"),
        ("leave", {"task": "x"}, "takes part in no task x"),
        ("export", {"task": "x", "out": "y"}, "takes part in no task x"),
        ("join", {"task": "x"}, "no task 'x' here; give the whole id"),
        ("join", {"file": "{}"}, "name: Field required"),
        ("dance", {}, "does not understand 'dance'"),
    ],
)
async def test_a_command_that_cannot_be_done_says_why(
    command: str, arguments: dict[str, str], line: str, net: Net
) -> None:
    async with net.peer(1) as peer:
        with pytest.raises(ControlError, match=line):
            await call(peer.folder, command, **arguments)


async def test_what_was_counted_is_told_as_metrics(net: Net, tmp_path: Path, tiny_plugins: None) -> None:
    pytest.importorskip("prometheus_client")
    async with net.peer(1, signed_file(tmp_path, tiny_manifest(1, rounds=1))) as peer:
        await peer.until(event="task", state="finished")
        assert "atcp_rounds_total" in await call(peer.folder, "metrics")


async def test_members_say_in_the_dht_that_they_are(
    net: Net, tmp_path: Path, tiny_plugins: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federated.directory.driver.PROVIDE_PAUSE", 0.05)
    path = signed_file(tmp_path, tiny_manifest(2, rounds=1))
    async with net.peer(3) as other, net.peers(2, path) as peers:
        wanted = {peer.host.peer_id for peer in peers}
        key = provider_key(bytes.fromhex(str((await peers[0].until(event="task"))["task"])))
        while not wanted <= set(other.kad.providers.providers(key, trio.current_time())):  # noqa: ASYNC110
            await trio.sleep(0.05)
