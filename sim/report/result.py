"""What a run came to, as one JSON object: the last line that a run prints, and result.json in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.run import Outcome


Measured = Mapping[str, int | float | None]  # of the machine, not of the run: differs each time


def result_of(outcome: Outcome, measured: Measured, *, report: str | None = None) -> dict[str, Any]:
    """The result. `measured` has "wall_seconds" and "rss_bytes" (the peak of the process), and may have more.

    `report` is the folder, if there is one.
    """
    return {
        "event": "result",
        "scenario": outcome.scenario.name,
        "rung": outcome.rung,
        "peers": outcome.peers,
        "seed": outcome.seed,
        "virtual_seconds": outcome.virtual_seconds,
        "events": outcome.events,
        **measured,
        "trace_hash": outcome.trace_hash,
        "results_hash": outcome.results_hash,
        "figures": dict(outcome.figures),
        "assertions": [asdict(check) for check in outcome.checks],
        "passed": outcome.holds,
        "report": report,
    }
