"""What is kept of a run in its folder: series and distributions, small enough to be read by anything.

Plots and page are made of this alone, so that an old folder can be shown again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from math import inf, isnan
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.record.figures import hops_of, latencies_of, median, percentile
from sim.record.series import KINDS, PerSecond

if TYPE_CHECKING:
    from sim.record import Recorder
    from sim.run import Outcome

CDF_POINTS = 500
DRAWN_NODES = 300  # of a larger network only the neighbourhood of its first node is drawn

Metrics = dict[str, Any]  # what JSON can hold


def metrics_of(outcome: Outcome) -> Metrics:
    """The series and distributions of a run. Times are virtual seconds; what it did not have is empty."""
    recorder = outcome.recorder
    return {
        "peers": outcome.peers,
        "virtual_seconds": outcome.virtual_seconds,
        "trouble": [[one.begin, one.end, one.what] for one in outcome.trouble],
        "latency_cdf": _cdf(latencies_of(recorder)),
        "latency_over_time": _latency_over_time(recorder),
        "copies_per_delivery": _copies(recorder),
        "hops": {
            "gossip": _counts(hops_of(recorder).tolist()),
            **{kind: _counts(_queries(recorder, number)) for number, kind in enumerate(KINDS)},
        },
        "connections": _counts(recorder.samples.degree.last),
        "mesh": _counts(recorder.samples.mesh.last),
        "samples": _samples(recorder),
        "scores": _scores(recorder),
        "per_second": _per_second(recorder),
        "bytes": {"sent": list(recorder.sent_by), "received": list(recorder.received_by)},
        "rounds": {task: _rounds(recorder, task) for task in recorder.rounds.tasks()},
        "topology": _topology(recorder),
    }


def _cdf(ordered: NDArray[np.float32]) -> Metrics:
    """At most `CDF_POINTS` points of the distribution, the first and the last value among them."""
    if not len(ordered):
        return {"ms": [], "share": [], "p50": None, "p99": None}
    ranks = np.unique(np.linspace(0, len(ordered) - 1, CDF_POINTS).round().astype(np.int64))
    return {
        "ms": [round(1000 * float(value), 3) for value in ordered[ranks]],
        "share": [round(float(rank + 1) / len(ordered), 6) for rank in ranks],
        "p50": round(1000 * percentile(ordered, 0.5), 3),
        "p99": round(1000 * percentile(ordered, 0.99), 3),
    }


def _latency_over_time(recorder: Recorder) -> Metrics:
    """Percentiles of the deliveries of what was published within each second."""
    seconds: dict[int, list[NDArray[np.float32]]] = {}
    for message in recorder.ledger:
        seconds.setdefault(int(message.published), []).append(message.latencies()[message.holders()])
    found: Metrics = {"at": [], "p50": [], "p90": [], "p99": []}
    for second in sorted(seconds):
        ordered = np.sort(np.concatenate(seconds[second]))
        if not len(ordered):
            continue
        found["at"].append(second)
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
            found[name].append(round(1000 * percentile(ordered, share), 3))
    return found


def _copies(recorder: Recorder) -> Metrics:
    """For each node with deliveries, the copies that it got of one message beside the first, to tenths."""
    delivered = np.zeros(recorder.scenario.peers, dtype=np.int64)
    for message in recorder.ledger:
        delivered += message.holders()
    copies = recorder.duplicates_of
    return _counts(round(copies[node] / int(count), 1) for node, count in enumerate(delivered) if count)


def _queries(recorder: Recorder, kind: int) -> list[int]:
    operations = recorder.operations
    return [hops for hops, of in zip(operations.hops, operations.kinds, strict=True) if of == kind]


def _samples(recorder: Recorder) -> Metrics:
    samples = recorder.samples
    return {
        "at": list(samples.times),
        "running": list(samples.running),
        "connections_low": list(samples.degree.low),
        "connections_median": list(samples.degree.median),
        "connections_high": list(samples.degree.high),
        "mesh_low": list(samples.mesh.low),
        "mesh_median": list(samples.mesh.median),
        "mesh_high": list(samples.mesh.high),
    }


def _scores(recorder: Recorder) -> Metrics:
    """What honest nodes think of honest ones and of adversaries; None where there is nobody."""
    scores = recorder.scores
    found: Metrics = {"at": list(scores.times)}
    for name, spread in (("honest", scores.honest), ("adversaries", scores.adversaries)):
        for part in ("low", "fifth", "median", "high"):
            values = getattr(spread, part)
            found[f"{name}_{part}"] = [None if isnan(value) else round(value, 3) for value in values]
    return found


def _per_second(recorder: Recorder) -> Metrics:
    """What happened within each virtual second, from 0."""
    seconds = int(recorder.heap.now) + 1
    published, delivered = [0] * seconds, np.zeros(seconds, dtype=np.int64)
    for message in recorder.ledger:
        published[min(int(message.published), seconds - 1)] += 1
        at = message.published + message.latencies()[message.holders()].astype(np.float64)
        np.add.at(delivered, np.minimum(at.astype(np.int64), seconds - 1), 1)
    return {
        "published": published,
        "delivered": delivered.tolist(),
        "copies": _padded(recorder.duplicates, seconds),
        "rejected": _padded(recorder.rejections, seconds),
        "connects": _padded(recorder.connects, seconds),
        "disconnects": _padded(recorder.disconnects, seconds),
    }


def _padded(series: PerSecond, seconds: int) -> list[int]:
    return [*series.counts, *(0 for _ in range(seconds - len(series.counts)))]


def _rounds(recorder: Recorder, task: str) -> list[Metrics]:
    return [
        {
            "number": one.number,
            "at": one.last,
            "seconds_apart": round(one.last - one.first, 6),
            "accuracy": median(one.accuracy),
            "accuracy_low": min(one.accuracy, default=None),
            "accuracy_high": max(one.accuracy, default=None),
            "loss": median(one.loss),
            "participants": one.participants,
            "reports": one.reports,
            "skipped": one.skipped,
            "digest": one.digest.hex(),
        }
        for one in recorder.rounds.of(task)
    ]


def _topology(recorder: Recorder) -> Metrics:
    """The nodes that are drawn, what is said of them, and the connections between them at the end."""
    edges = recorder.samples.edges
    pairs = list(zip(edges[::2], edges[1::2], strict=True))
    drawn = _neighbourhood(recorder.scenario.peers, pairs)
    chosen = set(drawn)  # only asked, never gone through
    return {
        "nodes": drawn,
        "edges": [[one, other] for one, other in pairs if one in chosen and other in chosen],
        "down": [node for node in drawn if recorder.presence.since(node) == inf],
        "adversaries": [node for node in drawn if not recorder.honest(node)],
    }


def _neighbourhood(peers: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """All nodes of a small network; of a large one those nearest to its first connected node, ascending."""
    if peers <= DRAWN_NODES:
        return list(range(peers))
    neighbours: dict[int, list[int]] = {}
    for one, other in pairs:
        neighbours.setdefault(one, []).append(other)
        neighbours.setdefault(other, []).append(one)
    first = min(neighbours, default=0)
    found, pending = {first: None}, deque([first])
    while pending and len(found) < DRAWN_NODES:
        for other in sorted(neighbours.get(pending.popleft(), ())):
            if other not in found and len(found) < DRAWN_NODES:
                found[other] = None
                pending.append(other)
    return sorted(found)


def _counts(values: Iterable[float]) -> Metrics:
    """How often each value occurs, ascending."""
    counts: dict[float, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    ordered = sorted(counts)
    return {"value": ordered, "count": [counts[value] for value in ordered]}
