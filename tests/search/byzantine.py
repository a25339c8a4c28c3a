"""Many seeds of `tests.search.parliament`: `python -m tests.search.byzantine --seeds 100000 --json`.

Ends with status 1 when a seed breaks a rule, and says with which command that seed repeats alone.
How soon all honest members decide after the healing is told in timeouts, separately for seeds without
liars: there nothing but the growth of the deadlines may cost more than one.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

from tests.search.parliament import Violation, draw_plan, run_seed

CHUNK = 50  # seeds that a process takes at once
MARGIN = 2.0  # timeouts; the figure that recovery is held against


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one seed: `broken` is the rule that it broke, `after` the timeouts from the healing."""

    seed: int
    honest: bool  # whether nobody lied
    after: float | None = None
    broken: str | None = None


def search_seed(seed: int, count: int | None = None) -> Outcome:
    """Runs one seed."""
    honest = not draw_plan(seed, count).liars
    try:
        return Outcome(seed=seed, honest=honest, after=run_seed(seed, count))
    except Violation as violation:
        return Outcome(seed=seed, honest=honest, broken=str(violation))


def search_chunk(search: Callable[[int], Outcome], seeds: Sequence[int]) -> list[Outcome]:
    """Runs some seeds without the garbage collector: what they leave is dropped as a whole."""
    gc.disable()
    outcomes = [search(seed) for seed in seeds]
    gc.collect()
    return outcomes


def search_all(search: Callable[[int], Outcome], seeds: Sequence[int], workers: int) -> Iterator[Outcome]:
    """Runs seeds in as many processes; the outcomes in their order."""
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    if workers == 1:
        for chunk in chunks:
            yield from search_chunk(search, chunk)
        return
    with get_context("fork").Pool(workers) as pool:
        for outcomes in pool.imap(partial(search_chunk, search), chunks):
            yield from outcomes


def distribution(spans: Iterable[float]) -> dict[str, float]:
    """Percentiles of timeouts, and the share within `MARGIN`."""
    found = sorted(spans)
    if not found:
        return {}
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
    figures = {
        name: round(found[max(0, math.ceil(share * len(found)) - 1)], 2) for name, share in shares.items()
    }
    within = sum(span <= MARGIN for span in found) / len(found)
    return {**figures, "max": round(found[-1], 2), "within": round(within, 5), "seeds": len(found)}


def main(words: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.search.byzantine", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--members", type=int, help="instead of a number from 4 to 16 drawn from the seed")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args(words)
    started = time.perf_counter()
    search = partial(search_seed, count=options.members)
    seeds = range(options.first, options.first + options.seeds)
    outcomes = list(search_all(search, seeds, options.workers))
    members = "" if options.members is None else f" --members {options.members}"
    broken = [
        {
            "seed": outcome.seed,
            "rule": outcome.broken,
            "repeat": f"python -m tests.search.byzantine --first {outcome.seed} --seeds 1{members}",
        }
        for outcome in outcomes
        if outcome.broken is not None
    ]
    told = [outcome for outcome in outcomes if outcome.after is not None]
    seconds = time.perf_counter() - started
    report: dict[str, Any] = {
        "seeds": len(outcomes),
        "broken": broken,
        "after_healing": {
            "without liars": distribution(item.after for item in told if item.honest and item.after),
            "with liars": distribution(item.after for item in told if not item.honest and item.after),
        },
        "seconds": round(seconds, 1),
        "seeds_per_second": round(len(outcomes) / seconds),
    }
    if options.json:
        print(json.dumps(report))
        return 1 if broken else 0
    for finding in broken[:10]:
        print(f"seed {finding['seed']} breaks a rule: {finding['rule']}\nrepeat with: {finding['repeat']}")
    print(f"{report['seeds']} seeds in {seconds:.1f} s, {len(broken)} of them break a rule")
    for name, figures in report["after_healing"].items():
        print(f"timeouts from the healing to the last decision, {name}: {figures}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
