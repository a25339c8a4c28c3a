"""One fault of each kind, drawn: whom it strikes, how hard, and for how long. Each one ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

LONGEST = 10.0  # seconds
LASTING = ("partition", "hold", "slow-reader")  # kinds of which a few last longer than connections do
LASTING_SECONDS = (45.0, 60.0)  # yamux gives up after 40


def _who(rng: Random, peers: int, share: float) -> dict[str, Any]:
    """From one node up to a share of all, by their numbers: a smaller plan leaves some of them out."""
    count = rng.randint(1, max(1, int(peers * share)))
    return {"nodes": sorted(rng.sample(range(peers), count))}


def _seconds(rng: Random, low: float, high: float = LONGEST) -> float:
    return round(rng.uniform(low, high), 3)


def _crash(rng: Random, peers: int) -> dict[str, Any]:
    return {
        "who": _who(rng, peers, 0.25),
        "seconds": _seconds(rng, 0.1),
        "keep_disk": rng.random() < 0.7,
        "silently": rng.random() < 0.2,
    }


def _partition(rng: Random, peers: int) -> dict[str, Any]:
    return {"who": _who(rng, peers, 0.5), "seconds": _seconds(rng, 1.0), "one_way": rng.random() < 0.4}


def _hold(rng: Random, peers: int) -> dict[str, Any]:
    return {"who": _who(rng, peers, 0.3), "seconds": _seconds(rng, 0.05, 5.0)}


def _reset(rng: Random, peers: int) -> dict[str, Any]:
    return {"who": _who(rng, peers, 0.3), "connections": round(rng.uniform(0.1, 1.0), 3)}


def _weather(rng: Random, peers: int) -> dict[str, Any]:
    return {
        "who": _who(rng, peers, 0.6),
        "seconds": _seconds(rng, 1.0),
        "loss": rng.choice([0.0, round(rng.uniform(0.0, 0.3), 3)]),
        "latency": rng.choice([1.0, round(rng.uniform(1.0, 10.0), 3)]),
        "jitter": rng.choice([0.0, round(rng.uniform(0.0, 3.0), 3)]),
        "mbit": rng.choice([0.0, round(rng.uniform(0.5, 10.0), 3)]),
    }


def _slow_reader(rng: Random, peers: int) -> dict[str, Any]:
    return {"who": _who(rng, peers, 0.25), "seconds": _seconds(rng, 0.5)}


def _slow_processor(rng: Random, peers: int) -> dict[str, Any]:
    return {
        "who": _who(rng, peers, 0.4),
        "seconds": _seconds(rng, 1.0),
        "factor": round(rng.uniform(2.0, 20.0), 3),
    }


def _disk_full(rng: Random, peers: int) -> dict[str, Any]:
    return {"who": _who(rng, peers, 0.3), "seconds": _seconds(rng, 0.5)}


def _disk_error(rng: Random, peers: int) -> dict[str, Any]:
    return {**_disk_full(rng, peers), "share": round(rng.uniform(0.05, 1.0), 3)}


def _clock_jump(rng: Random, peers: int) -> dict[str, Any]:
    by = rng.choice([500.0, 5_000.0, 3_600_000.0]) * rng.uniform(0.1, 1.0)  # ms
    return {
        "who": _who(rng, peers, 0.5),
        "seconds": _seconds(rng, 1.0),
        "by_ms": round(by if rng.random() < 0.5 else -by, 3),
    }


FAULTS: dict[str, Callable[[Random, int], dict[str, Any]]] = {
    "crash": _crash,
    "partition": _partition,
    "hold": _hold,
    "reset": _reset,
    "weather": _weather,
    "slow-reader": _slow_reader,
    "slow-processor": _slow_processor,
    "disk-full": _disk_full,
    "disk-error": _disk_error,
    "clock-jump": _clock_jump,
}


def prolong(rng: Random, fault: dict[str, Any]) -> None:
    """Lets one in twenty faults go on until peers give up each other, and long after requests should."""
    if fault["kind"] in LASTING and rng.random() < 0.05:
        fault["seconds"] = _seconds(rng, *LASTING_SECONDS)


def draw_churn(rng: Random, start: float, seconds: float) -> dict[str, Any]:
    """Nodes that come and go from `start` on, for so many seconds."""
    return {
        "kind": rng.choice(["exponential", "lognormal", "weibull"]),
        "session": _seconds(rng, 3.0, 30.0),
        "absence": _seconds(rng, 0.2),
        "shape": round(rng.uniform(0.5, 1.5), 3),
        "share": round(rng.uniform(0.1, 0.4), 3),
        "keep_disk": rng.random() < 0.7,
        "start": start,
        "seconds": seconds,
    }
