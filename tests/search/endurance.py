"""A task that is left alone for days: a member is killed in every round, and every round ends.

    python -m tests.search.endurance --rounds 10000 --json      the scenario `endurance`, seed by seed
    python -m tests.search.endurance --real --rounds 50 --json  real processes on loopback, without loss

In the simulator 7 members lose a packet in ten, and no more of them are down at once than may be missing for
a quorum: so every round is possible. On real processes rounds are shorter than the start of a process; what
is killed there are at most as many as run again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from federated.demo.ledger import Ledger
from federated.demo.run import Demo, DemoSettings
from sim.run import simulate
from sim.scenario.library import load

SPAN = 100  # rounds of one simulated task
MEMBERS = 7
SHARE = 0.999  # of the possible rounds that get a certificate
REAL_LIMIT = 900.0  # seconds for all real rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What became of the rounds of one task: `skipped` have a certificate too, that says so."""

    seed: int
    possible: int
    certified: int
    skipped: int
    kills: int
    problem: str = ""  # what did not hold, besides the share

    @property
    def ended(self) -> bool:
        """Whether every round did, for everybody."""
        return not self.problem and self.certified + self.skipped == self.possible


def simulated(seed: int, rounds: int = SPAN) -> Span:
    """One task in the simulator."""
    scenario = load("endurance")
    task = scenario.task[0].model_copy(update={"rounds": rounds})
    checks = scenario.checks.model_copy(update={"certified": None})  # that is for all spans together
    outcome = simulate(scenario.model_copy(update={"task": (task,), "checks": checks}), seed)
    found = outcome.recorder.rounds.of(task.name)
    broken = [f"{check.name}: {check.seen}" for check in outcome.checks if not check.holds]
    skipped = sum(one.skipped for one in found)
    return Span(
        seed=seed,
        possible=rounds,
        certified=len(found) - skipped,
        skipped=skipped,
        kills=outcome.recorder.presence.restarts,
        problem="; ".join(broken),
    )


async def real(seed: int, rounds: int) -> Span:
    """One task of real processes on loopback, one of which is killed in every round."""
    settings = DemoSettings(peers=MEMBERS, rounds=rounds, seed=seed, trainer="numpy")
    problem = ""
    with tempfile.TemporaryDirectory(prefix="atcp-endurance-") as folder:
        logs = Path(folder) / "logs"
        logs.mkdir()
        demo = Demo(settings, Path(folder), logs, _tell)
        demo._kills_due = list(range(1, rounds))
        try:
            with trio.fail_after(REAL_LIMIT):
                await demo.run()
        except* Exception as group:
            problem = "; ".join(str(exc) or type(exc).__name__ for exc in group.exceptions)
    records = demo.ledger.rounds.values()
    if not problem and not demo.ledger.digests_agree:
        problem = "the models of a round differ"
    skipped = sum(record.skipped for record in records)
    return Span(
        seed=seed,
        possible=rounds,
        certified=demo.ledger.certified - skipped,
        skipped=skipped,
        kills=len(demo.ledger.kills),
        problem=problem,
    )


def _tell(event: Mapping[str, Any], ledger: Ledger) -> None:
    if event["event"] in ("killed", "restarted", "lost"):
        print(f"{event['event']} …{event['peer'][-8:]} in round {ledger.last_round + 1}", file=sys.stderr)


def report(spans: list[Span], seconds: float, *, as_json: bool) -> int:
    """Says what came of it; the exit status."""
    total = {
        name: sum(getattr(span, name) for span in spans)
        for name in ("possible", "certified", "skipped", "kills")
    }
    bad = [span for span in spans if not span.ended]
    holds = not bad and total["certified"] >= SHARE * total["possible"]
    if as_json:
        print(json.dumps({**total, "tasks": len(spans), "bad": [asdict(span) for span in bad]}))
    else:
        for span in bad:
            print(f"seed {span.seed}: {span.certified} + {span.skipped} of {span.possible}; {span.problem}")
        print(f"{total['certified']} of {total['possible']} rounds certified, {total['skipped']} skipped,")
        print(f"{total['kills']} kills in {len(spans)} tasks, {seconds:.1f} s")
    return 0 if holds else 1


def simulate_all(rounds: int, first: int, processes: int, limit: float) -> list[Span]:
    """Tasks by seed from `first`, until there are enough rounds or `limit` seconds are over."""
    started, spans = time.monotonic(), list[Span]()
    seeds = list(range(first, first + -(-rounds // SPAN)))
    with ProcessPoolExecutor(processes) as pool:
        for start in range(0, len(seeds), processes):
            spans += pool.map(simulated, seeds[start : start + processes])
            if spans[-1].certified < SPAN:
                print(f"seed {spans[-1].seed}: {spans[-1]}", file=sys.stderr)
            if time.monotonic() - started > limit:
                break
    return spans


def main() -> int:
    """The command line; 0 when all rounds ended and enough have a certificate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1000, help="in all (default 1000)")
    parser.add_argument("--seed", type=int, default=1, help="the first one (default 1)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="of the simulator")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds after which no task begins")
    parser.add_argument("--real", action="store_true", help="real processes instead of the simulator")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()
    started = time.monotonic()
    if arguments.real:
        spans = [trio.run(real, arguments.seed, arguments.rounds)]
    else:
        spans = simulate_all(arguments.rounds, arguments.seed, arguments.processes, arguments.limit)
    return report(spans, time.monotonic() - started, as_json=arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
