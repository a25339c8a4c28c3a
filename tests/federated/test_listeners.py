"""Listeners hear what tasks report, in their order; what is wrong with one is its own affair."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pytest
import trio
import trio.testing

from federated.listeners import GROUP, Listener, load_listeners, open_listeners
from federated.reports import Report
from p2p.errors import InvalidInput

POINT = EntryPoint("noting", f"{__name__}:Noting", GROUP)


class Noting:
    """Keeps what it hears, and in which thread."""

    def __init__(self, place: str = "here") -> None:
        if place == "/":
            raise PermissionError("there is no writing\nto a root")
        if place == "silence":
            raise RuntimeError
        self.place = place
        self.heard: list[tuple[str, Any]] = []
        self.threads: list[int] = []
        self.closed = False

    def hear(self, peer: str, report: Report) -> None:
        self.threads.append(threading.get_ident())
        self.heard.append((peer, report["n"]))

    def close(self) -> None:
        self.closed = True


class Failing(Noting):
    """Fails at its second report."""

    def hear(self, peer: str, report: Report) -> None:
        super().hear(peer, report)
        if len(self.heard) == 2:
            raise OSError("no space left")


class Stuck(Noting):
    """Does not come back from its first report until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.may_end = threading.Event(), threading.Event()

    def hear(self, peer: str, report: Report) -> None:
        super().hear(peer, report)
        self.began.set()
        self.may_end.wait(60)


@contextmanager
def stuck() -> Iterator[Stuck]:
    listener = Stuck()
    try:
        yield listener
    finally:
        listener.may_end.set()


def test_tensorboard_is_installed() -> None:
    assert [point.name for point in entry_points(group=GROUP)] == ["tensorboard"]


def test_a_listener_is_made_with_its_place() -> None:
    assert load_listeners([]) == {}
    [listener] = load_listeners(["noting=a=b"], [POINT]).values()
    assert isinstance(listener, Noting)
    assert listener.place == "a=b"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("noting", r"--tell noting: write it like tensorboard=runs"),
        ("noting=", r"write it like"),
        ("deaf=here", r"--tell deaf=here: no listener 'deaf' is installed; there are: noting$"),
        ("noting=/", r"--tell noting=/: there is no writing$"),
        ("noting=silence", r"--tell noting=silence: RuntimeError$"),
    ],
)
def test_what_is_wrong_with_a_listener_is_said_in_one_line(text: str, line: str) -> None:
    with pytest.raises(InvalidInput, match=line):
        load_listeners([text], [POINT])


def test_where_none_is_installed_that_is_said() -> None:
    with pytest.raises(InvalidInput, match="there are: none"):
        load_listeners(["noting=here"], [])


async def test_listeners_hear_everything_in_its_order_off_the_loop() -> None:
    listeners: dict[str, Listener] = {"one": Noting(), "two": Noting()}
    expected = [(f"peer {number % 3}", number) for number in range(200)]
    async with open_listeners(listeners) as tell:
        for peer, number in expected:
            tell(peer, {"n": number})
            if number % 50 == 0:
                await trio.testing.wait_all_tasks_blocked()
    for listener in listeners.values():
        assert isinstance(listener, Noting)
        assert listener.heard == expected
        assert listener.closed
        assert threading.get_ident() not in listener.threads


async def test_what_was_reported_is_heard_although_the_peer_is_cancelled() -> None:
    listener = Noting()
    with trio.CancelScope() as scope:
        async with open_listeners({"one": listener}) as tell:
            tell("me", {"n": 1})
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert listener.heard == [("me", 1)]
    assert listener.closed


async def test_one_that_fails_is_told_no_more_and_spoils_nothing(caplog: pytest.LogCaptureFixture) -> None:
    failing, other = Failing(), Noting()
    async with open_listeners({"failing": failing, "other": other}) as tell:
        for number in range(4):
            tell("me", {"n": number})
            with trio.fail_after(60):
                while len(other.heard) <= number or (number == 1 and not caplog.records):
                    await trio.lowlevel.checkpoint()
    assert [number for _, number in failing.heard] == [0, 1]
    assert [number for _, number in other.heard] == [0, 1, 2, 3]
    assert caplog.messages == ["the listener failing is told no more: it failed: OSError('no space left')"]


async def test_one_that_is_too_slow_is_told_no_more(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federated.listeners.QUEUE", 2)
    with stuck() as listener:
        async with open_listeners({"slow": listener}) as tell:
            tell("me", {"n": 0})
            await trio.to_thread.run_sync(listener.began.wait, 60)
            for number in range(1, 6):
                tell("me", {"n": number})
            listener.may_end.set()
    assert [number for _, number in listener.heard] == [0, 1, 2]
    assert listener.closed
    assert caplog.messages == ["the listener slow is told no more: it is too slow"]


async def test_one_that_hangs_does_not_hold_up_the_end(autojump_clock: trio.testing.MockClock) -> None:
    with stuck() as listener:
        async with open_listeners({"stuck": listener}) as tell:
            tell("me", {"n": 0})
            tell("me", {"n": 1})
        assert trio.current_time() > 0
        assert not listener.closed
