"""The verdict on a run: every invariant, and what its scenario asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.record.figures import last_round, median, percentile
from sim.record.invariants import RULES
from sim.record.series import KINDS

if TYPE_CHECKING:
    from sim.record.ledger import Message
    from sim.record.recorder import Recorder

AFTERMATH = 2.0  # seconds behind a publication in which a fault may still hit its deliveries
PATIENCE = 30.0  # seconds after which a DHT operation is lost when nothing goes wrong
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something that must hold, whether it did, and what was seen."""

    name: str
    holds: bool
    seen: str


def judge(recorder: Recorder) -> list[Check]:
    """All checks, after `Recorder.finish`: the invariants first, then those of the scenario."""
    return [
        *_invariants(recorder),
        *_delivery(recorder),
        *_operations(recorder),
        *_training(recorder),
    ]


def _invariants(recorder: Recorder) -> list[Check]:
    checks = []
    for rule in RULES:
        count, first = recorder.violations.counts[rule], recorder.violations.first_of(rule)
        if not count:
            seen = "always"
        else:
            seen = f"{count} times" if first is None else f"{count} times, first: {first}"
        checks.append(Check(name=rule, holds=not count, seen=seen))
    return checks


# Gossip


@dataclass(slots=True)
class _Tally:
    messages: int = 0
    expected: int = 0
    got: int = 0


def _delivery(recorder: Recorder) -> list[Check]:
    if not recorder.scenario.gossip:
        return []
    calm, stormy, seconds = _tallies(recorder)
    checks, wanted = [], recorder.scenario.checks
    if not calm.messages + stormy.messages:
        checks.append(Check(name="honest nodes publish", holds=False, seen="not a single message"))
    for name, tally, share in (
        ("messages published in calm reach", calm, wanted.delivery),
        ("messages published under faults reach", stormy, wanted.delivery_under_faults),
    ):
        if share is not None:
            name = f"{name} {100 * share:g} % of those who listen"
            checks.append(_share(name, tally.got, tally.expected, share))
    if wanted.p99_ms is not None:
        slow = 1000 * percentile(seconds, 0.99) if len(seconds) else 0.0
        checks.append(
            Check(
                name=f"99 % of the deliveries in calm take at most {wanted.p99_ms:g} ms",
                holds=slow <= wanted.p99_ms,
                seen=f"{slow:.1f} ms" if len(seconds) else "nothing to judge",
            )
        )
    if wanted.max_ms is not None:
        slow = 1000 * float(seconds[-1]) if len(seconds) else 0.0
        checks.append(
            Check(
                name=f"no delivery in calm takes more than {wanted.max_ms:g} ms",
                holds=slow <= wanted.max_ms,
                seen=f"{slow:.1f} ms" if len(seconds) else "nothing to judge",
            )
        )
    if wanted.eclipse_seconds is not None:
        checks.append(
            Check(
                name=f"the mesh of every honest node is mostly honest within {wanted.eclipse_seconds:g} s",
                holds=recorder.longest_eclipse <= wanted.eclipse_seconds,
                seen=f"{recorder.longest_eclipse:g} s at the longest",
            )
        )
    return checks


def _tallies(recorder: Recorder) -> tuple[_Tally, _Tally, np.ndarray[tuple[int], np.dtype[np.float32]]]:
    """What messages of honest nodes reached: published in calm, published under faults; calm latencies."""
    honest = np.array([recorder.honest(node) for node in range(recorder.scenario.peers)], dtype=np.bool_)
    calm, stormy, seconds = _Tally(), _Tally(), [np.zeros(0, dtype=np.float32)]
    for message in recorder.ledger:
        if message.publisher < 0 or not honest[message.publisher]:
            continue
        in_calm = _published_in_calm(recorder, message)
        tally = calm if in_calm else stormy
        listening = recorder.presence.listening_since(message.topic, message.published) & honest
        listening[message.publisher] = False
        got = listening & message.holders()
        tally.messages += 1
        tally.expected += int(np.count_nonzero(listening))
        tally.got += int(np.count_nonzero(got))
        if in_calm:
            seconds.append(message.latencies()[got])
    return calm, stormy, np.sort(np.concatenate(seconds))


def _published_in_calm(recorder: Recorder, message: Message) -> bool:
    end = min(message.published + AFTERMATH, max(recorder.heap.now, message.published))
    return recorder.calm(message.published, end)


# The DHT


def _operations(recorder: Recorder) -> list[Check]:
    operations, wanted = recorder.operations, recorder.scenario.checks
    if not len(operations) + len(operations.pending):
        return []
    ended = [[0, 0] for _ in KINDS]  # by kind: all of honest nodes in calm, those that ended well
    for index in range(len(operations)):
        end = operations.ends[index]
        began = max(0.0, end - operations.seconds[index])
        if recorder.honest(operations.nodes[index]) and recorder.calm(began, end):
            ended[operations.kinds[index]][0] += 1
            ended[operations.kinds[index]][1] += operations.ok[index]
    late = _late(recorder)
    checks = [
        Check(
            name="every DHT operation ends",
            holds=not late,
            seen=f"{len(late)} did not, first: {late[0]}" if late else "always",
        )
    ]
    for kind, share, (count, ok) in zip(KINDS, (wanted.finds, wanted.puts, wanted.gets), ended, strict=True):
        if share is not None and count:
            checks.append(_share(f"{100 * share:g} % of the {kind}s in calm end well", ok, count, share))
    return checks


def _late(recorder: Recorder) -> list[str]:
    """The operations that took too long, or do, in words: of honest nodes that have run all the time."""
    operations, now, most = recorder.operations, recorder.heap.now, recorder.scenario.checks.dht_seconds
    late = [
        _described(KINDS[operations.kinds[index]], node, operations.seconds[index])
        for index, node in enumerate(operations.nodes)
        if operations.seconds[index] > most and recorder.honest(node)
    ]
    for pending in operations.pending.values():
        age = now - pending.began
        there = recorder.honest(pending.node) and recorder.presence.since(pending.node) <= pending.began
        if there and (age > most or (age > PATIENCE and recorder.calm(pending.began, now))):
            late.append(_described(pending.kind, pending.node, age))
    return late


def _described(kind: str, node: int, seconds: float) -> str:
    return f"a {kind} of node {node}, {seconds:.1f} s old"


# Training


def _training(recorder: Recorder) -> list[Check]:
    checks, wanted = [], recorder.scenario.checks
    for load in recorder.scenario.task:
        rounds = recorder.rounds.of(load.name)
        if wanted.rounds:
            checks.append(_finished(recorder, load.name, len(rounds), load.rounds))
        if wanted.certified is not None:
            certified = sum(not one.skipped for one in rounds)
            name = f"{100 * wanted.certified:g} % of the rounds of {load.name} are certified"
            checks.append(_share(name, certified, load.rounds, wanted.certified))
        if wanted.accuracy is not None:
            last = last_round(rounds)
            accuracy = None if last is None else median(last.accuracy)
            checks.append(
                Check(
                    name=f"the last model of {load.name} is right in {100 * wanted.accuracy:g} % or more",
                    holds=accuracy is not None and accuracy >= wanted.accuracy,
                    seen="nobody measured it" if accuracy is None else f"{100 * accuracy:.4g} %",
                )
            )
    return checks


def _finished(recorder: Recorder, task: str, seen: int, rounds: int) -> Check:
    """Every honest member that runs at the end is through; at least one is."""
    finished = recorder.rounds.finished.get(task, {})
    members = [
        node
        for node in sorted(recorder.rounds.members.get(task, {}))
        if recorder.honest(node) and recorder.presence.since(node) <= recorder.heap.now
    ]
    behind = [node for node in members if node not in finished]
    text = f"{len(members) - len(behind)} of {len(members)} members, {seen} rounds"
    if behind:
        text += f"; not node {', '.join(map(str, behind[:5]))}{', …' if len(behind) > 5 else ''}"
        if recorder.waits:
            text += f"; the first complaint: {next(iter(recorder.waits))}"
    name = f"every member that runs is through with the {rounds} rounds of {task}"
    return Check(name=name, holds=bool(members) and not behind, seen=text)


def _share(name: str, good: int, of: int, share: float) -> Check:
    seen = f"{good:,} of {of:,} ({100 * good / of:.5g} %)" if of else "nothing to judge"
    return Check(name=name, holds=good >= share * of - _EPSILON, seen=seen)
