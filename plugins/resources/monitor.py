"""What this process and its machine use: processor, memory, disk, network, battery, GPUs that torch uses."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from federated.resources import Reading


class MachineMonitor:
    """The resource monitor. Shares of the processor are since the reading before, and at first 0."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()
        psutil.cpu_percent()

    def read(self, folder: Path | None) -> Iterator[Reading]:
        """What there is to be read now; `folder` is where the peer keeps its files."""
        cores = psutil.cpu_count() or 1
        memory, network = psutil.virtual_memory(), psutil.net_io_counters()
        own, all_of_it = self._process.cpu_percent() / 100 / cores, psutil.cpu_percent() / 100
        yield Reading(name="process_cpu_share", value=own, meaning="of all cores, by this process")
        yield Reading(name="cpu_share", value=all_of_it, meaning="of all cores, by everything")
        rss = self._process.memory_info().rss
        yield Reading(name="process_memory_bytes", value=rss, meaning="resident, of this process")
        yield Reading(name="memory_free_bytes", value=memory.available, meaning="that the machine has left")
        if folder is not None:
            free = psutil.disk_usage(str(folder)).free
            yield Reading(name="disk_free_bytes", value=free, meaning="where the data folder lies")
        if network is not None:  # as in a sandbox without devices
            sent, received = network.bytes_sent, network.bytes_recv
            yield Reading(name="network_sent_bytes", value=sent, meaning="by the machine since it started")
            yield Reading(name="network_received_bytes", value=received, meaning="since the machine started")
        yield from _battery()
        yield from _gpus(sys.modules.get("torch"))


def _battery() -> Iterator[Reading]:
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is not None:
        yield Reading(name="battery_share", value=battery.percent / 100, meaning="of the charge that is left")
        plugged = float(bool(battery.power_plugged))
        yield Reading(name="battery_charging", value=plugged, meaning="1 while the machine is plugged in")


def _gpus(torch: Any) -> Iterator[Reading]:
    """Of GPUs that this process trains on: asking about others would take memory of them."""
    if torch is None or not torch.cuda.is_initialized():
        return
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        device = f"cuda:{number}"
        yield Reading(name="gpu_memory_free_bytes", value=free, meaning="of a GPU", device=device)
        yield Reading(name="gpu_memory_bytes", value=total, meaning="of a GPU, in all", device=device)
