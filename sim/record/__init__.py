"""What a run leaves behind: a hash of everything that happened, series, figures, and what had to hold."""

from sim.record.checks import Check, judge
from sim.record.figures import Figure, figures_of, percentile
from sim.record.invariants import Violation
from sim.record.pubsub_trace import PubsubTrace
from sim.record.recorder import Recorder
from sim.record.results import hash_of, results_of
from sim.record.trace import TraceHash

__all__ = [
    "Check",
    "Figure",
    "PubsubTrace",
    "Recorder",
    "TraceHash",
    "Violation",
    "figures_of",
    "hash_of",
    "judge",
    "percentile",
    "results_of",
]
