from __future__ import annotations

import json
import socket
import stat
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from federated import control
from federated.control import MAX_CONNECTIONS, NAME, ControlError, call, is_running, open_control
from federated.errors import DataError, ManifestError
from p2p.errors import InvalidInput, LocalProtocolError


async def echo(command: str, arguments: dict[str, Any]) -> Any:
    """Answers with what was asked."""
    match command:
        case "fail":
            raise DataError("no data here\nand more lines")
        case "nonsense":
            raise ManifestError("not a manifest")
        case "misuse":
            raise LocalProtocolError("")
        case "large":
            return "x" * (1 << 20)
        case "wait":
            await trio.sleep_forever()
    return {"command": command, **arguments}


async def raw(folder: Path, data: bytes) -> bytes:
    """All that comes back for `data`."""
    with control._reachable(folder / NAME) as address:
        async with await trio.open_unix_socket(address) as stream:
            await stream.send_all(data)
            await stream.send_eof()
            return b"".join([piece async for piece in stream])


async def test_a_command_is_answered_with_what_it_came_to(tmp_path: Path) -> None:
    async with open_control(tmp_path, echo):
        assert await call(tmp_path, "status", task="a") == {"command": "status", "task": "a"}
        assert await call(tmp_path, "large") == "x" * (1 << 20)


async def test_only_the_owner_may_use_the_socket_and_it_goes_with_the_peer(tmp_path: Path) -> None:
    async with open_control(tmp_path, echo):
        assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
        assert is_running(tmp_path)
    assert not (tmp_path / NAME).exists()
    assert not is_running(tmp_path)


@pytest.mark.parametrize(
    ("command", "line"),
    [("fail", "no data here"), ("nonsense", "not a manifest"), ("misuse", "LocalProtocolError")],
)
async def test_a_command_that_fails_says_why_in_one_line(command: str, line: str, tmp_path: Path) -> None:
    async with open_control(tmp_path, echo):
        with pytest.raises(ControlError) as caught:
            await call(tmp_path, command)
        assert str(caught.value) == line


async def test_without_a_peer_it_is_said_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no peer runs in .*python -m p2p.peer --data-dir"):
        await call(tmp_path, "status")


async def test_the_socket_of_a_dead_peer_is_taken_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / NAME))
    with pytest.raises(InvalidInput, match="no peer runs"):
        await call(tmp_path, "status")
    assert not is_running(tmp_path)
    async with open_control(tmp_path, echo):
        assert await call(tmp_path, "a") == {"command": "a"}


async def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("mine")
    with pytest.raises(InvalidInput, match="is in the way"):
        async with open_control(tmp_path, echo):
            pass
    assert (tmp_path / NAME).read_text() == "mine"


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot listen at"):
        async with open_control(tmp_path / "none", echo):
            pass


async def test_a_folder_with_a_long_name_works_too(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    async with open_control(folder, echo):
        assert await call(folder, "a") == {"command": "a"}
        assert is_running(folder)


@pytest.mark.parametrize(
    ("data", "line"),
    [(b"x\n", "not a command: not JSON"), (b"[]\n", "not a command"), (b'{"command": 1}\n', "not a command")],
)
async def test_what_is_no_command_is_told_so(data: bytes, line: str, tmp_path: Path) -> None:
    async with open_control(tmp_path, echo):
        assert json.loads(await raw(tmp_path, data)) == {"error": line}


@pytest.mark.parametrize("data", [b"", b'{"command": "a"}', b"x" * ((1 << 19) + 1)])
async def test_who_sends_no_whole_line_or_too_long_a_one_gets_nothing(data: bytes, tmp_path: Path) -> None:
    async with open_control(tmp_path, echo):
        with trio.fail_after(60):
            with suppress(trio.BrokenResourceError):  # it was closed before all was sent
                assert await raw(tmp_path, data) == b""
        assert await call(tmp_path, "a") == {"command": "a"}


async def test_a_command_that_is_too_long_is_not_sent(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="over the limit"):
        await call(tmp_path, "a", file="x" * (1 << 19))


async def test_who_asks_and_says_nothing_holds_up_nobody_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "REQUEST_TIMEOUT", 0.05)
    async with open_control(tmp_path, echo), AsyncExitStack() as stack:
        with control._reachable(tmp_path / NAME) as address:
            for _ in range(MAX_CONNECTIONS + 4):
                await stack.enter_async_context(await trio.open_unix_socket(address))
        with trio.fail_after(60):
            assert await call(tmp_path, "a") == {"command": "a"}


async def test_an_answer_that_takes_too_long_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ANSWER_TIMEOUT", 0.05)
    async with open_control(tmp_path, echo):
        with pytest.raises(ControlError, match=r"went away|does not answer"):
            await call(tmp_path, "wait")


async def test_a_peer_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_TIMEOUT", 0.02)
    monkeypatch.setattr(control, "REQUEST_TIMEOUT", 0.02)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / NAME))
        silent.listen(1)
        with pytest.raises(ControlError, match="does not answer"):
            await call(tmp_path, "status")


async def test_a_peer_that_answers_nonsense_is_no_success(tmp_path: Path) -> None:
    listener = trio.socket.socket(socket.AF_UNIX)
    await listener.bind(str(tmp_path / NAME))
    listener.listen(1)

    async def answer() -> None:
        accepted, _ = await listener.accept()
        async with trio.SocketStream(accepted) as stream:
            await stream.receive_some(1000)
            await stream.send_all(b"[]\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        with pytest.raises(ControlError, match="went away"):
            await call(tmp_path, "status")
    listener.close()
