from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys

import pytest
import trio

from p2p.address import parse_address, split_peer
from p2p.data_dir import open_data_dir
from p2p.errors import DialFailed, InvalidInput
from p2p.host import open_host
from p2p.options import parse_arguments
from p2p.peer import main, publish_lines
from p2p.peer_id import PeerId
from p2p.pnet import PreSharedKey
from p2p.services import load_task_service
from tests.processes import PEER, run_peer, run_process
from tests.support import key_number

BOOTSTRAP = f"/ip4/127.0.0.1/tcp/4001/p2p/{PeerId.from_public_key(key_number(1).public)}"
LISTEN = ["--listen", "/ip4/127.0.0.1/tcp/0"]


def text_of(event):
    return base64.b64decode(event["data"]).decode()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--listen", "127.0.0.1:4001"], "not a multiaddr"),
        (["--listen", ""], "not a multiaddr"),
        (["--listen", "/ip4/127.0.0.1/tcp/99999"], "not a multiaddr"),
        (["--listen", "/ip4/127.0.0.1/udp/1"], "cannot listen"),
        (["--bootstrap", "/ip4/127.0.0.1/tcp/4001"], "--bootstrap"),
        (["--bootstrap", "/p2p/" + BOOTSTRAP.rpartition("/")[2]], "--bootstrap"),
        (["--bootstrap", BOOTSTRAP[:-3]], "not a"),
        (["--log-level", "loud"], "--log-level"),
        (["--unknown"], "--unknown"),
        ([*LISTEN, "--plugin", "digits"], "--plugin"),
        ([*LISTEN, "--tell", "tensorboard=runs"], "--tell"),
        ([*LISTEN, "--task", "/does/not/exist.json"], "/does/not/exist.json"),
        ([*LISTEN, "--data-dir", "/dev/null/folder"], "/dev/null/folder"),
        ([*LISTEN, "--security", "none"], "--security"),
        ([*LISTEN, "--private-network", "/does/not/exist.key"], "/does/not/exist.key"),
        ([*LISTEN, "--private-network", __file__], "4096"),
        ([*LISTEN, "--ws-certificate", "server.pem"], "--ws-key"),
        ([*LISTEN, "--ws-certificate", __file__, "--ws-key", __file__], "--ws-certificate"),
        (["--listen", "/ip4/127.0.0.1/tcp/0/tls/ws"], "certificate"),
    ],
)
def test_unusable_input_is_one_line_and_status_2(arguments, reason, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert reason in captured.err


def test_a_port_in_use_is_one_line_and_status_2(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["--listen", f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "in use" in captured.err


def test_an_unreadable_key_is_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / "identity.key").write_bytes(b"\x08\x01\x12\x40" + bytes(10))
    assert main([*LISTEN, "--data-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["--help"])
    assert exit_info.value.code == 0
    assert "examples:" in capsys.readouterr().out


def test_without_arguments_a_peer_listens_on_every_interface():
    arguments = parse_arguments([])
    assert [str(address) for address in arguments.listen] == ["/ip4/0.0.0.0/tcp/0"]


def test_a_task_without_the_service_installed_is_named(monkeypatch):
    monkeypatch.setattr("p2p.services.entry_points", lambda **_: [])
    with pytest.raises(InvalidInput, match="no installed package"):
        load_task_service(["task.json"], [])
    assert load_task_service([], []) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_a_peer_cleanly(number):
    async with run_peer() as (peer, listening):
        assert listening["addrs"][0].endswith("/p2p/" + listening["peer_id"])
        with trio.fail_after(60):
            peer.process.send_signal(number)
            await peer.wait_for("closed")
            assert await peer.process.wait() == 0


async def test_peers_meet_talk_and_part(tmp_path):
    async with run_peer("--subscribe", "chat", "--data-dir", str(tmp_path)) as (one, listening):
        address = listening["addrs"][0]
        async with run_peer("--subscribe", "chat", "--bootstrap", address) as (two, other):
            met = await one.wait_for("connected")
            assert met["peer"] == other["peer_id"]
            assert met["outbound"] is False
            assert (await two.wait_for("connected"))["peer"] == listening["peer_id"]
            await two.send("grüße")
            message = await one.wait_for("message")
            assert message["from"] == other["peer_id"]
            assert (message["topic"], text_of(message)) == ("chat", "grüße")
            await one.send("back")
            assert text_of(await two.wait_for("message")) == "back"
        gone = await one.wait_for("disconnected")
        assert gone["peer"] == other["peer_id"]
    with open_data_dir(tmp_path) as key:
        assert str(PeerId.from_public_key(key.public)) == listening["peer_id"]


async def test_a_peer_that_knows_one_address_finds_all_others():
    async with run_peer() as (_, listening), trio.open_nursery() as nursery:
        wanted = 4
        ids = {}

        async def join(number):
            async with run_peer("--bootstrap", listening["addrs"][0]) as (peer, own):
                ids[number] = own["peer_id"]
                found = set()
                while len(found) < wanted:
                    found.add((await peer.wait_for("connected"))["peer"])
                done.append(found | {own["peer_id"]})
                if len(done) == wanted:
                    all_done.set()
                await all_done.wait()

        done: list[set[str]] = []
        all_done = trio.Event()
        for number in range(wanted):
            nursery.start_soon(join, number)
        await all_done.wait()
        assert all(found == {listening["peer_id"], *ids.values()} for found in done)


async def test_a_reader_that_goes_away_ends_the_peer():
    async with run_process(PEER) as peer:
        listening = await peer.wait_for("listening")
        await peer.process.stdout.aclose()
        async with run_peer("--bootstrap", listening["addrs"][0]):
            with trio.fail_after(60):
                assert await peer.process.wait() == 0


def test_people_get_sentences_on_stdout():
    command = [sys.executable, "-m", "p2p.peer", *LISTEN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("listening on /ip4/127.0.0.1/tcp/")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out == "closed\n"


class Pubsub:
    """Remembers what is published."""

    def __init__(self):
        self.lines = []

    async def wait_for_peers(self, topic, count):
        await trio.lowlevel.checkpoint()

    def publish(self, topic, data):
        if len(data) > 1 << 19:
            from p2p.errors import LocalProtocolError

            raise LocalProtocolError("too large")
        self.lines.append(data)


async def test_lines_are_published_one_by_one_and_the_last_needs_no_newline():
    reading, writing = os.pipe()
    os.write(writing, b"one\n\ntwo\nlast")
    os.close(writing)
    pubsub = Pubsub()
    await publish_lines(pubsub, "t", reading)
    os.close(reading)
    assert pubsub.lines == [b"one", b"", b"two", b"last"]


async def test_a_line_that_is_too_long_is_dropped_alone(tmp_path, caplog):
    path = tmp_path / "lines"
    path.write_bytes(b"x" * (1 << 20) + b"\nok\n" + b"y" * (3 << 20) + b"\nend\n")
    pubsub = Pubsub()
    with path.open("rb") as file:
        await publish_lines(pubsub, "t", file.fileno())
    assert pubsub.lines == [b"ok", b"end"]
    assert "too large" in caplog.text
    assert "over 1048576 bytes" in caplog.text


async def test_peers_of_a_private_network_meet_each_other_and_nobody_else(tmp_path):
    ours, other = tmp_path / "ours.key", tmp_path / "other.key"
    ours.write_bytes(PreSharedKey(bytes(range(32))).encode())
    other.write_bytes(PreSharedKey(bytes(32)).encode())
    async with run_peer("--private-network", str(ours)) as (first, listening):
        join = ["--bootstrap", listening["addrs"][0]]
        async with run_peer(*join, "--private-network", str(ours)) as (_, member):
            assert (await first.wait_for("connected"))["peer"] == member["peer_id"]
            address, peer = split_peer(parse_address(listening["addrs"][0]))
            for psk in (None, PreSharedKey.parse(other.read_bytes())):
                async with open_host(psk=psk) as stranger:
                    with pytest.raises(DialFailed):
                        await stranger.connect(peer, [address])


@pytest.mark.parametrize("security", ["noise", "tls"])
async def test_a_peer_over_websocket_with_one_kind_of_security(security):
    listen = ["--listen", "/ip4/127.0.0.1/tcp/0/ws", "--security", security]
    async with run_peer(*listen) as (first, listening):
        [address] = [address for address in listening["addrs"] if "/ws/" in address]
        async with run_peer("--bootstrap", address) as (second, _):
            assert (await first.wait_for("connected"))["peer"]
            assert (await second.wait_for("connected"))["addr"].endswith("/ws")
