"""The figures of a run: one flat dict for people, programs and plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.record.series import KINDS, Round

if TYPE_CHECKING:
    from sim.record.recorder import Recorder

Figure = int | float | str | bool | None


def percentile(ordered: Sequence[float] | NDArray[np.floating | np.integer], share: float) -> float:
    """The nearest-rank percentile of an ascending, non-empty sequence."""
    return float(ordered[max(1, math.ceil(round(share * len(ordered), 6))) - 1])


def figures_of(recorder: Recorder) -> dict[str, Figure]:
    """All figures, after `Recorder.finish`; those of loads that the run did not have are left out."""
    return {
        **(_gossip_figures(recorder) if len(recorder.ledger) else {}),
        **(_dht_figures(recorder) if len(recorder.operations) else {}),
        **_round_figures(recorder),
        **_network_figures(recorder),
    }


def latencies_of(recorder: Recorder) -> NDArray[np.float32]:
    """The seconds that each delivery took, ascending."""
    parts = [message.latencies()[message.holders()] for message in recorder.ledger]
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.float32)


def hops_of(recorder: Recorder) -> NDArray[np.uint8]:
    """The links that each delivery came over, ascending."""
    parts = [message.hops() for message in recorder.ledger]
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.uint8)


def median(values: Sequence[float]) -> float | None:
    """The lower median, None of nothing."""
    return percentile(sorted(values), 0.5) if len(values) else None


def last_round(rounds: Sequence[Round]) -> Round | None:
    """The last round in which somebody measured the model, None without one."""
    return next((one for one in reversed(rounds) if len(one.accuracy)), None)


def _gossip_figures(recorder: Recorder) -> dict[str, Figure]:
    latencies, hops = latencies_of(recorder), hops_of(recorder)
    figures: dict[str, Figure] = {
        "messages": len(recorder.ledger),
        "deliveries": recorder.ledger.deliveries,
    }
    if len(latencies):
        figures |= {
            "latency_p50_ms": _ms(percentile(latencies, 0.5)),
            "latency_p90_ms": _ms(percentile(latencies, 0.9)),
            "latency_p99_ms": _ms(percentile(latencies, 0.99)),
            "latency_max_ms": _ms(float(latencies[-1])),
            "duplicates_per_delivery": _round(recorder.duplicates.total / len(latencies)),
        }
    if len(hops):
        figures |= {"hops_p50": int(percentile(hops, 0.5)), "hops_p99": int(percentile(hops, 0.99))}
    return {**figures, "rejected_messages": recorder.rejections.total, **_score_figures(recorder)}


def _score_figures(recorder: Recorder) -> dict[str, Figure]:
    """The worst that an honest node was thought of, and what became of adversaries."""
    lowest = [score for score in recorder.scores.honest.low if not math.isnan(score)]
    figures: dict[str, Figure] = {"honest_score_lowest": _round(min(lowest))} if lowest else {}
    if recorder.scenario.adversaries:
        medians = [score for score in recorder.scores.adversaries.median if not math.isnan(score)]
        figures |= {
            "adversary_score_median": _round(medians[-1]) if medians else None,
            "adversaries_graylisted": recorder.graylistings,
            "longest_eclipse_seconds": recorder.longest_eclipse,
        }
    return figures


def _dht_figures(recorder: Recorder) -> dict[str, Figure]:
    operations, figures = recorder.operations, dict[str, Figure]()
    for number, kind in enumerate(KINDS):
        chosen = [index for index in range(len(operations)) if operations.kinds[index] == number]
        if not chosen:
            continue
        seconds = sorted(operations.seconds[index] for index in chosen)
        hops = sorted(operations.hops[index] for index in chosen)
        figures |= {
            f"{kind}s": len(chosen),
            f"{kind}s_ok_share": _round(sum(operations.ok[index] for index in chosen) / len(chosen)),
            f"{kind}_p50_ms": _ms(percentile(seconds, 0.5)),
            f"{kind}_p99_ms": _ms(percentile(seconds, 0.99)),
            f"{kind}_queries_p50": int(percentile(hops, 0.5)),
            f"{kind}_queries_p99": int(percentile(hops, 0.99)),
        }
    return figures


def _round_figures(recorder: Recorder) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for task in recorder.rounds.tasks():
        rounds = recorder.rounds.of(task)
        last = last_round(rounds)
        figures |= {
            f"{task}_members": len(recorder.rounds.members.get(task, {})),
            f"{task}_rounds": len(rounds),
            f"{task}_rounds_skipped": sum(one.skipped for one in rounds),
            f"{task}_accuracy": None if last is None else _optional(median(last.accuracy)),
            f"{task}_loss": None if last is None else _optional(median(last.loss)),
        }
    return figures


def _network_figures(recorder: Recorder) -> dict[str, Figure]:
    peers, seconds = recorder.scenario.peers, recorder.heap.now
    degree, mesh = recorder.samples.degree.last, recorder.samples.mesh.last
    figures: dict[str, Figure] = {
        "running_at_end": recorder.presence.running(),
        "restarts": recorder.presence.restarts,
        "connections_opened": recorder.connects.total,
        "connections_closed": recorder.disconnects.total,
    }
    if len(degree):
        figures["connections_median"] = int(percentile(degree, 0.5))
    if len(mesh):
        figures["mesh_median"] = int(percentile(mesh, 0.5))
    if len(recorder.sent_by) and seconds:
        figures["bytes_sent"] = sum(recorder.sent_by)
        figures["bytes_per_peer_second"] = _round(sum(recorder.sent_by) / peers / seconds)
    return {**figures, "accusations": sum(recorder.accusations.values())}


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _round(value: float) -> float:
    return round(value, 6)


def _optional(value: float | None) -> float | None:
    return None if value is None else _round(value)
