"""How a task stands, gathered from what it reports: what `atcp task status` shows (sans-I/O)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from federated.manifest import TaskManifest
from federated.reports import Report
from federated.rounds.committee import Membership
from federated.rounds.messages import Certificate

MAX_REFUSED = 64  # (peer, rule) that are counted; more members than that seldom misbehave at once

CAPABILITY = (
    "steps_per_second",
    "bytes_down",
    "bytes_up",
    "aggregate_bytes_per_second",
    "memory",
    "cores",
)
_GONE = {"leave": "left", "eject": "ejected", "void": "ejected"}


class Standing:
    """One task at one peer: fed with its reports, asked for a summary."""

    def __init__(self, manifest: TaskManifest) -> None:
        self.manifest = manifest
        self.state = "starting"
        self.round = 0  # the last one that is certified
        self._reason: str | None = None
        self._phase: dict[str, Any] | None = None  # that ended last
        self._last: dict[str, Any] | None = None  # certificate
        self._measured: dict[str, Any] = {}
        self._quality: dict[str, Any] | None = None  # of the round that was assessed last
        self._training: dict[str, Any] | None = None  # what the trainer told last
        self._privacy: dict[str, Any] | None = None  # what the updates gave away, in a private task
        self._sums: dict[str, Any] | None = None  # what the last round was for, in a task of secure sums
        self._members = dict.fromkeys(manifest.members, "active")
        self._capabilities: dict[str, dict[str, Any]] = {}  # of active members
        self._refused: Counter[tuple[str, str]] = Counter()

    def handle(self, report: Report) -> None:
        """Takes one report of the task."""
        self._privacy = report.get("privacy", self._privacy)
        self._training = report.get("training", self._training)
        self._sums = report.get("sums", self._sums)
        match report:
            case {"event": "task", "state": state}:
                self.state, self._reason = state, report.get("reason")
            case {"event": "phase"}:
                self._phase = {
                    name: report.get(name) for name in ("round", "phase", "seconds", "answers", "needed")
                }
            case {"event": "certificate", "round": number}:
                self.round = max(self.round, number)
                self._last = {
                    name: report.get(name)
                    for name in ("round", "view", "block", "digest", "skipped", "votes")
                }
            case {"event": "membership", "change": change, "peer": peer}:
                self._members[peer] = _GONE.get(change, "active")
                if change in _GONE:
                    self._capabilities.pop(peer, None)
            case {"event": "capability", "peer": peer}:
                self._capabilities[peer] = {name: report[name] for name in CAPABILITY}
            case {"event": "quality"}:
                self._quality = {name: report[name] for name in ("round", "before", "after", "peers")}
            case {"event": "offence", "peer": peer, "rule": rule}:
                self._count(peer, rule)
            case {"event": "round", "round": number, "refused": refused}:
                self.round = max(self.round, number)
                self._measured = {name: report.get(name) for name in ("accuracy", "loss", "seconds")}
                for item in refused:
                    self._count(item["peer"], item["rule"])

    def restore(self, certificate: Certificate, membership: Membership) -> None:
        """Takes what is certified already when the peer starts; what was reported since then stays."""
        if certificate.round > self.round:
            block = certificate.block
            self.round = certificate.round
            self._last = {
                "round": certificate.round,
                "view": certificate.view,
                "block": block.hash.hex(),
                "digest": block.model.digest.hex(),
                "skipped": block.skipped,
                "votes": len(certificate.votes),
            }
        for peer in membership.members:
            if membership.is_active(peer):
                self._members.setdefault(str(peer), "active")
            elif self._members.get(str(peer), "active") == "active":
                self._members[str(peer)] = "gone"  # left or ejected, before we were told

    @property
    def is_over(self) -> bool:
        """Whether all rounds are certified."""
        return self.round >= self.manifest.rounds

    def summary(self, disk: int | None = None) -> dict[str, Any]:
        """Everything, ready for JSON; `disk` are the bytes that the task keeps."""
        return {
            "task": self.manifest.task_id.hex(),
            "name": self.manifest.name,
            "state": self.state,
            "reason": self._reason,
            "round": self.round,
            "rounds": self.manifest.rounds,
            "phase": self._phase,
            "members": dict(self._members),
            "capabilities": dict(self._capabilities),
            "certificate": self._last,
            **{name: self._measured.get(name) for name in ("accuracy", "loss", "seconds")},
            "training": self._training,
            "privacy": self._privacy,
            "mode": "robust" if self.manifest.sums is None else self.manifest.sums.mode,
            "sums": self._sums,
            "quality": self._quality,
            "refused": [
                {"peer": peer, "rule": rule, "count": count} for (peer, rule), count in self._refused.items()
            ],
            "disk_bytes": disk,
        }

    def _count(self, peer: str, rule: str) -> None:
        if (peer, rule) in self._refused or len(self._refused) < MAX_REFUSED:
            self._refused[peer, rule] += 1
