"""Follows what the tasks of a peer report: counts it, and writes it into their audit trails.

    task ──report──→ Monitor.watch ─┬─→ Metrics, as Prometheus text
                                    ├─→ AuditTrail.record
                                    └─→ whoever follows the peer

A report that is of no interest to metrics or audit only passes through. Labels take values of which there
are few: tasks, phases, choices, rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from federated.audit import AuditTrail
from federated.errors import FederatedError
from federated.reports import Report

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

BUCKETS = (0.005, 0.02, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # seconds of a phase or a round


class MetricsUnavailable(FederatedError):
    """The package that makes metrics is not installed; the message says how to get it."""


class Metrics:
    """The counters of the peer `peer`, as prometheus_client keeps them. Raises `MetricsUnavailable`."""

    def __init__(self, peer: str = "") -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram  # 12 ms, 1.5 MB
        except ImportError as exc:
            raise MetricsUnavailable("metrics need the extra: pip install 'atcp[metrics]'") from exc
        self._registry = CollectorRegistry()
        self._bytes_sent = 0
        self._peer = peer

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"atcp_{name}", what, ["task", *labels], registry=self._registry)

        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"atcp_{name}", what, ["task"], registry=self._registry)

        def histogram(name: str, what: str, *labels: str) -> Histogram:
            return Histogram(
                f"atcp_{name}", what, ["task", *labels], registry=self._registry, buckets=BUCKETS
            )

        self.rounds = counter("rounds", "rounds that are over", "outcome")
        self.round_seconds = histogram("round_seconds", "of rounds from their beginning to their model")
        self.phase_seconds = histogram("phase_seconds", "of the phases of rounds", "phase")
        self.deadlines = counter("phase_deadlines", "phases that a deadline ended, not a quorum", "phase")
        self.proposals = counter("proposals", "blocks that this peer supported first")
        self.votes = counter("votes", "votes that this peer cast", "choice")
        self.quorums = counter("quorums", "quorums of votes that this peer learned of", "choice")
        self.views = counter("views", "views that the certified rounds took")
        self.changes = counter("membership_changes", "certified changes of the membership", "change")
        self.members = gauge("members", "that are active, since a change of the membership")
        self.evidence = counter("evidence", "members that were caught with two votes")
        self.offences = counter("offences", "broken rules, each member and rule once a round", "rule")
        self.refused = counter("refused_updates", "updates that this peer refused", "rule")
        self.objections = counter("objections", "models that were worse on this peer's held-out data")
        self.mismatches = counter("mismatches", "models of others that differ from ours")
        self.catch_ups = counter("catch_ups", "models that were fetched instead of computed")
        self.disk_waits = counter("disk_waits", "times that the task stood still for the disk")
        self.disk_waiting = gauge("disk_waiting", "1 while the task stands still for the disk")
        self.relieved = counter("relieved_rounds", "rounds in which this peer was too slow to aggregate")
        self.capability = {
            "steps_per_second": gauge("steps_per_second", "of training, as this peer announced it"),
            "bytes_down": gauge("down_bytes_per_second", "of blobs to this peer, as it announced it"),
            "bytes_up": gauge("up_bytes_per_second", "of blobs from this peer, as it announced it"),
            "aggregate_bytes_per_second": gauge(
                "aggregate_bytes_per_second", "of updates averaged, as this peer announced it"
            ),
        }
        self.round = gauge("round", "the last round that is over")
        self.participants = gauge("participants", "members whose updates are in the last model")
        self.accuracy = gauge("accuracy", "of the last model on held-out data")
        self.loss = gauge("loss", "of the last model on held-out data")
        self.contributions = counter("contributions", "updates assessed by held-out data", "worth")
        self.epsilon = gauge("epsilon", "of differential privacy that this peer's updates gave away")
        self.sent_bytes = Counter("atcp_sent_bytes", "by this peer since its start", registry=self._registry)

    def text(self) -> str:
        """All of them, in the text format of Prometheus."""
        from prometheus_client import generate_latest

        return str(generate_latest(self._registry), "utf-8")

    def count(self, report: Report) -> None:
        """Takes in one report of a task."""
        task = report["task"]
        if "privacy" in report:
            self.epsilon.labels(task).set(report["privacy"]["epsilon"])
        match report:
            case {"event": "round"}:
                self._count_round(task, report)
            case {"event": "phase", "phase": phase, "answers": answers, "needed": needed}:
                self.phase_seconds.labels(task, phase).observe(report["seconds"])
                if answers < needed:
                    self.deadlines.labels(task, phase).inc()
            case {"event": "proposal"}:
                self.proposals.labels(task).inc()
            case {"event": "vote", "choice": choice}:
                self.votes.labels(task, choice).inc()
            case {"event": "quorum", "choice": choice}:
                self.quorums.labels(task, choice).inc()
            case {"event": "certificate", "view": view}:
                self.views.labels(task).inc(view)
            case {"event": "membership", "change": change, "members": members}:
                self.changes.labels(task, change).inc()
                self.members.labels(task).set(members)
            case {"event": "evidence"}:
                self.evidence.labels(task).inc()
            case {"event": "offence", "rule": rule}:
                self.offences.labels(task, rule).inc()
            case {"event": "objection"}:
                self.objections.labels(task).inc()
            case {"event": "mismatch"}:
                self.mismatches.labels(task).inc()
            case {"event": "capability", "peer": self._peer}:
                for name, value in self.capability.items():
                    value.labels(task).set(report[name])
            case {"event": "quality", "peers": peers}:
                for item in peers:
                    self.contributions.labels(task, worth_of(item)).inc()
            case {"event": "duty", "relieved": True}:
                self.relieved.labels(task).inc()
            case {"event": "task", "state": state}:
                self.disk_waiting.labels(task).set(state == "waiting")
                self.disk_waits.labels(task).inc(state == "waiting")

    def _count_round(self, task: str, report: Report) -> None:
        self.rounds.labels(task, "skipped" if report["skipped"] else "certified").inc()
        self.round.labels(task).set(report["round"])
        self.participants.labels(task).set(len(report["participants"]))
        if report["catch_up"]:
            self.catch_ups.labels(task).inc()
        else:
            self.round_seconds.labels(task).observe(report["seconds"])
        for refused in report["refused"]:
            self.refused.labels(task, refused["rule"]).inc()
        for gauge, value in ((self.accuracy, report["accuracy"]), (self.loss, report["loss"])):
            if value is not None:
                gauge.labels(task).set(value)
        self.sent_bytes.inc(max(0, report["bytes_sent"] - self._bytes_sent))
        self._bytes_sent = max(self._bytes_sent, report["bytes_sent"])


def worth_of(contribution: Report) -> str:
    """Whether the round's model is better here for an update; where that is unknown, whether it is alone."""
    left_out, gain = contribution["leave_one_out"], contribution["gain"]
    worth = gain if left_out is None else left_out
    return "unknown" if worth is None else "harmful" if worth < 0 else "helpful"


class Monitor:
    """What follows all tasks of the peer `peer`; nothing is counted where there is nothing to count with."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._metrics: Metrics | None = None  # until there is a task

    def metrics(self) -> str:
        """What was counted, in the text format of Prometheus. Raises `MetricsUnavailable`."""
        return (self._metrics or Metrics(self._peer)).text()

    def watch(self, trail: AuditTrail, report: Callable[[Report], None]) -> Callable[[Report], None]:
        """What a task is given to report to: `trail` is its audit trail, `report` is told everything."""
        with suppress(MetricsUnavailable):
            self._metrics = self._metrics or Metrics(self._peer)

        def tell(event: Report) -> None:
            if self._metrics is not None:
                self._metrics.count(event)
            for entry in audit_of(self._peer, event):
                trail.record(*entry)
            report(event)

        return tell


AuditEntry = tuple[str, str, str, str, Mapping[str, Any]]  # actor, action, object, outcome, body


def audit_of(peer: str, report: Report) -> Iterator[AuditEntry]:
    """What the audit trail of `peer` says about one report; the report is the body."""
    name = report["event"]
    place = f"round {report['round']}" if "round" in report else "task"
    where = f"{place} view {report['view']}" if "view" in report else place
    match report:
        case {"event": "task", "name": title, "state": state}:
            yield peer, name, title, state, report
        case {"event": "round", "skipped": skipped, "catch_up": catch_up}:
            for refused in report["refused"]:
                yield refused["peer"], "update", where, refused["rule"], {}
            yield peer, name, where, "skipped" if skipped else "adopted" if catch_up else "computed", report
        case {"event": "phase", "phase": phase, "answers": answers, "needed": needed}:
            yield peer, f"{phase} phase", where, "deadline" if answers < needed else "complete", report
        case {"event": "vote", "choice": choice} | {"event": "quorum", "choice": choice}:
            yield peer if name == "vote" else "voters", name, where, choice, report
        case {"event": "certificate", "skipped": skipped}:
            yield "voters", name, where, "skipped" if skipped else "certified", report
        case {"event": "membership", "peer": member, "change": change}:
            yield "voters", name, member, change, report
        case {"event": "evidence", "peer": member}:
            yield member, "equivocation", where, "proven", report
        case {"event": "offence", "peer": member, "rule": rule}:
            yield member, name, where, rule, report
        case {"event": "mismatch", "peer": member}:
            yield member, "model", where, "differs", report
        case {"event": "objection"}:
            yield peer, "model", where, "loss", report
        case {"event": "capability", "peer": member}:
            yield member, name, where, "announced", report
        case {"event": "duty", "relieved": relieved}:
            yield peer, name, where, "relieved" if relieved else "taken up", report
        case {"event": "catch_up", "fetched": what}:
            yield peer, name, where, what, report
        case _:
            yield peer, name, where, "", report
