"""What a simulated run leaves behind: a hash of everything that happened, figures, and what had to hold.

For people a table; for programs one JSON object a line, of which the last is the result.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TextIO

Figure = int | float | str | bool | None
Step = Callable[[Mapping[str, Figure]], None]  # told how far a run is, now and then


class Trace:
    """A running hash of a run's events: equal hashes mean that two runs went the same way."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, now: float, kind: str, *parts: int | str | bytes) -> None:
        """Takes one event in; every part counts, and where one ends and the next begins."""
        entry = [f"{now:.9f}".encode(), kind.encode()]
        entry += [part if isinstance(part, bytes) else str(part).encode() for part in parts]
        self._hash.update(b"".join(len(part).to_bytes(4, "big") + part for part in entry))

    def digest(self) -> str:
        """The hash so far, in hexadecimal."""
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something that must hold at the end of a run, whether it did, and what was seen."""

    name: str
    holds: bool
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One finished run."""

    scenario: str
    seed: int
    peers: int
    virtual_seconds: float
    events: int
    trace_hash: str
    figures: Mapping[str, Figure]
    checks: Sequence[Check]

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)


def write_step(step: Mapping[str, Figure], out: TextIO) -> None:
    """One step of a run in progress, as a JSON object."""
    print(json.dumps({"event": "step", **step}), file=out, flush=True)


def write_json(result: Result, wall_seconds: float, out: TextIO) -> None:
    """The result as one JSON object, the last line of a run."""
    last = {
        "event": "result",
        "scenario": result.scenario,
        "seed": result.seed,
        "peers": result.peers,
        "virtual_seconds": result.virtual_seconds,
        "wall_seconds": round(wall_seconds, 3),
        "events": result.events,
        "trace_hash": result.trace_hash,
        "figures": dict(result.figures),
        "assertions": [asdict(check) for check in result.checks],
        "passed": result.passed,
    }
    print(json.dumps(last), file=out)


def write_table(result: Result, wall_seconds: float, out: TextIO) -> None:
    """The result for people."""
    speed = result.virtual_seconds / wall_seconds if wall_seconds else 0.0
    print(f"{result.scenario}: {result.peers} peers, seed {result.seed}", file=out)
    print(f"  {result.virtual_seconds:.1f} s simulated in {wall_seconds:.1f} s ({speed:.1f}x)", file=out)
    for name, value in result.figures.items():
        text = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else value
        print(f"  {name.replace('_', ' '):<28} {text}", file=out)
    for check in result.checks:
        print(f"  {'ok    ' if check.holds else 'FAILED'} {check.name}: {check.seen}", file=out)
    print(f"  trace {result.trace_hash}", file=out)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of an ascending, non-empty sequence."""
    return ordered[max(1, math.ceil(round(share * len(ordered), 6))) - 1]
