"""Our program for libp2p's transport test, as listener and as dialer, with a real redis server."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from p2p.address import parse_address
from tests.interop.resp import MAX_ANSWER, Redis, RedisError
from tests.interop.transport import Settings, Unusable, address_for_others, report, settings_of
from tests.processes import DEADLINE

ROOT = Path(__file__).parent.parent.parent
PROGRAM = [sys.executable, "-m", "tests.interop.transport"]

NOW = {
    "IS_DIALER": "true",
    "REDIS_ADDR": "transport-redis:6379",
    "TEST_KEY": "a5b50d5e",
    "TRANSPORT": "tcp",
    "SECURE_CHANNEL": "noise",
    "MUXER": "yamux",
    "LISTENER_IP": "0.0.0.0",
    "DEBUG": "false",
}
BEFORE = {
    "is_dialer": "true",
    "redis_addr": "redis:6379",
    "transport": "tcp",
    "security": "noise",
    "muxer": "yamux",
    "ip": "0.0.0.0",
    "test_timeout_seconds": "60",
}


# The environment


def test_the_names_of_today_are_understood() -> None:
    assert settings_of(NOW) == Settings(
        dialer=True,
        redis=("transport-redis", 6379),
        key="a5b50d5e_listener_multiaddr",
        transport="tcp",
        security="noise",
        ip="0.0.0.0",
        timeout=180.0,
        legacy=False,
    )


def test_the_names_of_before_are_understood() -> None:
    assert settings_of(BEFORE) == Settings(
        dialer=True,
        redis=("redis", 6379),
        key="listenerAddr",
        transport="tcp",
        security="noise",
        ip="0.0.0.0",
        timeout=60.0,
        legacy=True,
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"IS_DIALER": "maybe"}, "IS_DIALER=maybe: we speak true and false"),
        ({"TRANSPORT": "quic-v1"}, "TRANSPORT=quic-v1: we speak tcp and ws"),
        ({"SECURE_CHANNEL": ""}, "SECURE_CHANNEL=: we speak noise and tls"),
        ({"MUXER": "mplex"}, "MUXER=mplex: we speak yamux"),
        ({"REDIS_ADDR": "transport-redis"}, "REDIS_ADDR=transport-redis: write host:port"),
        ({"TEST_KEY": ""}, "TEST_KEY is not set"),
        ({"TEST_TIMEOUT_SECS": "soon"}, "TEST_TIMEOUT_SECS=soon: write whole seconds"),
    ],
)
def test_what_we_cannot_do_is_said(change: dict[str, str], reason: str) -> None:
    with pytest.raises(Unusable, match=re.escape(reason)):
        settings_of(NOW | change)


def test_the_results_have_the_form_of_their_harness() -> None:
    assert report(settings_of(NOW), 0.0050111, 0.000599) == (
        "latency:\n  handshake_plus_one_rtt: 5.011\n  ping_rtt: 0.599\n  unit: ms"
    )
    assert json.loads(report(settings_of(BEFORE), 0.0050111, 0.000599)) == {
        "handshakePlusOneRTTMillis": 5.011,
        "pingRTTMilllis": 0.599,
    }


def test_an_address_that_others_can_reach_is_preferred() -> None:
    loopback, v6, v4 = map(
        parse_address, ["/ip4/127.0.0.1/tcp/1", "/ip6/2001:db8::1/tcp/1", "/ip4/192.0.2.1/tcp/1"]
    )
    assert address_for_others([loopback, v6, v4]) == v4
    assert address_for_others([loopback, v6]) == v6
    assert address_for_others([loopback]) == loopback


# The redis client


async def answer_to(answer: bytes, *words: str) -> tuple[object, bytes]:
    """What `Redis.command` returns when the server says `answer` byte by byte, and what it had sent."""
    ours, server = trio.testing.lockstep_stream_pair()

    async def serve() -> None:
        for byte in answer:
            await server.send_all(bytes([byte]))
        await server.send_eof()

    async with trio.open_nursery() as nursery:
        got = None

        async def ask() -> None:
            nonlocal got
            got = await Redis(ours).command(*words)

        nursery.start_soon(ask)
        sent = await server.receive_some()
        nursery.start_soon(serve)
    return got, bytes(sent)


async def test_a_command_is_a_list_of_strings() -> None:
    assert await answer_to(b":1\r\n", "RPUSH", "k", "é") == (
        1,
        b"*3\r\n$5\r\nRPUSH\r\n$1\r\nk\r\n$2\r\n\xc3\xa9\r\n",
    )


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (b"+OK\r\n", b"OK"),
        (b":-7\r\n", -7),
        (b"$3\r\na\r\n\r\n", b"a\r\n"),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"*2\r\n$1\r\nk\r\n$2\r\nvv\r\n", [b"k", b"vv"]),
    ],
)
async def test_an_answer_is_read_byte_by_byte(answer: bytes, value: object) -> None:
    assert (await answer_to(answer, "X"))[0] == value


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"-WRONGTYPE no list\r\n", "WRONGTYPE no list"),
        (b"hello\r\n", "not an answer"),
        (b"$5\r\nab", "closed the connection"),
    ],
)
async def test_a_refusal_is_an_error(answer: bytes, reason: str) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(RedisError, match=reason)):
        await answer_to(answer, "X")


async def test_an_answer_without_an_end_is_cut_off() -> None:
    ours, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, b"+" + bytes(2 * MAX_ANSWER))
        with pytest.raises(RedisError, match="more than"):
            await Redis(ours).command("X")


# With a real server


@asynccontextmanager
async def open_redis(folder: Path) -> AsyncIterator[str]:
    """host:port of a redis server of our own, which keeps nothing."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        said = b""
        while b"eady to accept connections" not in said:
            more = await server.stdout.receive_some()
            assert more, f"redis-server ended: {said!r}"
            said += more
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        with trio.CancelScope(shield=True):
            await server.wait()
            await server.stdout.aclose()


async def play(redis: str, environment: dict[str, str]) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of a dialer, with a listener beside it as the harness would start it."""
    clean = {name: value for name, value in os.environ.items() if name not in {*NOW, *BEFORE}}
    ours = clean | environment
    part, server = ("IS_DIALER", "REDIS_ADDR") if "IS_DIALER" in environment else ("is_dialer", "redis_addr")
    ours[server] = redis

    async def listen() -> None:
        await trio.run_process(PROGRAM, cwd=ROOT, env=ours | {part: "false"}, check=False)

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            done = await trio.run_process(
                PROGRAM, cwd=ROOT, env=ours, check=False, capture_stdout=True, capture_stderr=True
            )
            nursery.cancel_scope.cancel()
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("security", ["noise", "tls"])
@pytest.mark.parametrize("transport", ["tcp", "ws"])
async def test_a_dialer_finds_its_listener_and_reports_yaml(
    tmp_path: Path, transport: str, security: str
) -> None:
    async with open_redis(tmp_path) as redis:
        asked = NOW | {"TRANSPORT": transport, "SECURE_CHANNEL": security}
        status, out, err = await play(redis, asked)
    assert (status, err) == (0, "")
    number = r"\d+\.\d+"
    assert re.fullmatch(
        rf"latency:\n  handshake_plus_one_rtt: {number}\n  ping_rtt: {number}\n  unit: ms\n", out
    )


async def test_the_contract_of_before_is_kept_too(tmp_path: Path) -> None:
    async with open_redis(tmp_path) as redis:
        status, out, err = await play(redis, BEFORE)
    assert (status, err) == (0, "")
    assert set(json.loads(out)) == {"handshakePlusOneRTTMillis", "pingRTTMilllis"}


async def test_a_failure_is_told_on_stderr_and_by_the_exit_status() -> None:
    environment = {**os.environ, **NOW, "TRANSPORT": "quic-v1"}
    done = await trio.run_process(
        PROGRAM, cwd=ROOT, env=environment, check=False, capture_stdout=True, capture_stderr=True
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"TRANSPORT=quic-v1: we speak tcp and ws" in done.stderr
