"""What the machine of a peer has left: plugins of the group `federated.resources` read it for the metrics.

They run on the operator's word alone: no task names them, and what they read travels nowhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

GROUP = "federated.resources"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One number: `name` ends in its unit, `device` tells several of one kind apart."""

    name: str
    value: float
    meaning: str
    device: str = ""


class ResourceMonitor(Protocol):
    """A class without settings, named by an entry point."""

    def read(self, folder: Path | None) -> Iterable[Reading]:
        """What there is to be read now, quickly; `folder` is where the peer keeps its files."""


class Resources:
    """All monitors that are installed. One that fails is left out, and said so in the log."""

    def __init__(self, installed: Iterable[EntryPoint] | None = None) -> None:
        """`installed` defaults to every entry point of the group; they are imported when somebody asks."""
        self._installed = installed
        self._monitors: dict[str, ResourceMonitor] | None = None

    def text(self, folder: Path | None) -> str:
        """All readings, in the text format of Prometheus. May block: the disk is asked."""
        from prometheus_client import CollectorRegistry, Gauge, generate_latest

        registry = CollectorRegistry()
        gauges: dict[str, Gauge] = {}
        for reading in self.readings(folder):
            gauge = gauges.get(reading.name)
            if gauge is None:
                gauge = Gauge(f"atcp_{reading.name}", reading.meaning, ["device"], registry=registry)
                gauges[reading.name] = gauge
            gauge.labels(reading.device).set(reading.value)
        return str(generate_latest(registry), "utf-8")

    def readings(self, folder: Path | None) -> Iterator[Reading]:
        """What all monitors read now. May block: the disk is asked."""
        for name, monitor in self._open().items():
            try:
                yield from monitor.read(folder)
            except Exception as exc:  # a stranger's plugin may raise anything
                logger.warning("the resource monitor %s failed: %r", name, exc)

    def _open(self) -> dict[str, ResourceMonitor]:
        """The monitors, made the first time."""
        if self._monitors is None:
            self._monitors = {}
            for point in entry_points(group=GROUP) if self._installed is None else self._installed:
                try:
                    self._monitors[point.name] = point.load()()
                except Exception as exc:  # a stranger's plugin may raise anything
                    logger.warning("the resource monitor %s cannot be used: %r", point.name, exc)
        return self._monitors
