"""What holds a plugin process, with the calls into the system caught: this process is none."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import psutil
import pytest

from federated.isolation import limits
from federated.isolation.limits import RESERVE, SHARE

INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("group", "part"),
    [("max\n", 1.0), ("nonsense", 1.0), ("1073741824\n", 0.0), (f"{1 << 62}", 1.0), (None, 1.0)],
)
def test_a_plugin_may_have_a_part_of_what_the_machine_or_its_group_has(
    group: str | None, part: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CGROUP", tmp_path / "memory.max")
    if group is not None:
        (tmp_path / "memory.max").write_text(group)
    total = psutil.virtual_memory().total if part else 1 << 30
    assert limits.default_memory() == total // SHARE


@pytest.mark.parametrize(
    ("hard", "soft_set", "hard_set"),
    [(INFINITY, 1 << 28, (1 << 28) + RESERVE), (1 << 40, 1 << 28, (1 << 28) + RESERVE), (1 << 20,) * 3],
)
def test_memory_is_held_with_a_reserve_that_can_be_released(
    hard: int, soft_set: int, hard_set: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [(INFINITY, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda which: held[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: held.append(pair))
    limits.hold_memory(1 << 28)
    assert held[-1] == (soft_set, hard_set)
    limits.release_reserve()
    assert held[-1] == (hard_set, hard_set)


def test_a_process_whose_peer_is_gone_already_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("os.killpg", lambda *args: calls.append(args))
    monkeypatch.setattr("fcntl.fcntl", lambda *args: 0)
    lifeline, ours = os.pipe()
    limits.end_with(lifeline)
    assert calls == []
    os.close(ours)
    limits.end_with(lifeline)
    os.close(lifeline)
    assert calls == [(os.getpgrp(), 9)]


def test_the_kernel_is_asked_to_end_it_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OOM_SCORE", tmp_path / "oom_score_adj")
    limits.go_first()
    assert (tmp_path / "oom_score_adj").read_text() == "500"
    monkeypatch.setattr(limits, "OOM_SCORE", tmp_path / "nowhere" / "oom_score_adj")
    limits.go_first()  # a kernel that does not ask


def test_traces_are_left_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("faulthandler.enable", lambda *args, **more: calls.append(("enable", args, more)))
    monkeypatch.setattr("faulthandler.register", lambda *args, **more: calls.append(("register", args, more)))
    limits.leave_traces(7)
    assert calls == [
        ("enable", (7,), {"all_threads": False}),
        ("register", (limits.DUMP_SIGNAL, 7), {"all_threads": False}),
    ]


def test_what_is_gone_has_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits.resident(os.getpid()) > 1 << 20

    def gone(*_: object) -> None:
        raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(psutil.Process, "memory_info", gone)
    assert limits.resident(os.getpid()) == 0
    monkeypatch.setattr(psutil.Process, "__init__", gone)
    assert limits.resident(os.getpid()) == 0
