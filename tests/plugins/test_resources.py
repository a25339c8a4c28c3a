from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from federated.resources import GROUP, Reading, Resources
from plugins.resources.monitor import MachineMonitor


class Broken:
    """A monitor that fails after its first reading."""

    def read(self, folder: Path | None) -> Iterator[Reading]:
        yield Reading(name="answers", value=42.0, meaning="of all")
        raise OSError("no sensor")


class Unusable:
    """A monitor that cannot be made."""

    def __init__(self) -> None:
        raise OSError("no device")


def resources(*names: str) -> Resources:
    return Resources([EntryPoint(name, f"{__name__}:{name}", GROUP) for name in names])


def readings(folder: Path | None = None) -> dict[tuple[str, str], float]:
    return {(item.name, item.device): item.value for item in MachineMonitor().read(folder)}


def test_a_machine_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    found = readings(tmp_path)
    assert 0 <= found["cpu_share", ""] <= 1
    assert found["process_memory_bytes", ""] > 1e7
    assert found["memory_free_bytes", ""] > 0
    assert found["disk_free_bytes", ""] > 0
    assert not [name for name, _ in found if name.startswith("battery")]
    assert "disk_free_bytes" not in {name for name, _ in readings()}


def test_what_a_machine_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "net_io_counters", lambda: None)
    monkeypatch.delattr(psutil, "sensors_battery", raising=False)
    assert not [name for name, _ in readings() if name.startswith(("network", "battery"))]


def test_a_battery_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    battery = SimpleNamespace(percent=40, power_plugged=None)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    found = readings()
    assert (found["battery_share", ""], found["battery_charging", ""]) == (0.4, 0.0)


@pytest.mark.parametrize("initialised", [False, True])
def test_gpus_are_read_once_the_process_uses_them(initialised: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_initialized=lambda: initialised,
        device_count=lambda: 2,
        mem_get_info=lambda number: (number + 1, 10),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    found = readings()
    assert [found.get(("gpu_memory_free_bytes", f"cuda:{number}")) for number in (0, 1)] == (
        [1, 2] if initialised else [None, None]
    )
    monkeypatch.delitem(sys.modules, "torch")
    assert ("gpu_memory_bytes", "cuda:0") not in readings()


def test_readings_are_metrics_and_a_broken_monitor_spoils_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = resources("Unusable", "Broken").text(None)
    assert 'atcp_answers{device=""} 42.0' in text
    assert [record.getMessage() for record in caplog.records] == [
        "the resource monitor Unusable cannot be used: OSError('no device')",
        "the resource monitor Broken failed: OSError('no sensor')",
    ]


def test_the_built_in_monitor_is_installed() -> None:
    assert "atcp_process_memory_bytes" in Resources().text(None)
