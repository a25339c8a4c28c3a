"""What one field of a scenario says about another: each mistake is a ValueError with one line, what to write.

Whole scenarios name the field in the line; parts leave that to pydantic, which knows where they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sim.scenario.timing import work_end

if TYPE_CHECKING:
    from sim.scenario.model import Latency, NetworkSettings, Scenario, Selection

ROLES = ("preprocessor", "trainer", "aggregator", "validator")  # of plugins, as a task names them
MAX_FULL = 500  # peers of a full mesh: beyond it the connections alone are more than 100 000


def check_latency(latency: Latency) -> None:
    """A range that is not upside down, a matrix that is square."""
    if latency.kind == "uniform" and latency.max_ms < latency.ms:
        raise ValueError(f"max_ms = {latency.max_ms:g} is less than ms = {latency.ms:g}; write at least that")
    if (latency.kind == "matrix") != bool(latency.matrix):
        raise ValueError('kind = "matrix" and the rows in matrix go together; write both or neither')
    if latency.kind == "geo":
        from sim.network.geography import PRESETS  # the network knows its presets, and imports scenarios

        if latency.preset not in PRESETS:
            raise ValueError(f"no preset {latency.preset!r}; write one of {', '.join(PRESETS)}")
    regions = len(latency.matrix)
    for number, row in enumerate(latency.matrix):
        if len(row) != regions:
            raise ValueError(
                f"row {number} of matrix has {len(row)} numbers; write {regions}, as it has rows"
            )
        if not all(0 <= ms <= 60_000 for ms in row):
            raise ValueError(f"row {number} of matrix: write milliseconds from 0 to 60000")


def check_nat(network: NetworkSettings) -> None:
    """Somebody must be there whom everybody can dial."""
    total = 0.0
    for nat in network.nat:
        total += nat.share
    if total >= 1:
        raise ValueError(f"the shares of nat make {total:g}; write less than 1, or nobody can be dialed")


def check_selection(who: Selection) -> None:
    """Exactly one way to say which nodes."""
    given = [bool(who.nodes), who.share > 0, who.count > 0]
    if given.count(True) != 1:
        raise ValueError("write exactly one of nodes, share (over 0) and count (over 0)")
    if len({*who.nodes}) != len(who.nodes):
        raise ValueError("a node stands twice in nodes; write each once")


def check_scenario(scenario: Scenario) -> None:
    """Nothing asks for more nodes than there are, nor for something after the end."""
    for problem in _problems(scenario):
        raise ValueError(problem)


def _problems(scenario: Scenario) -> Iterator[str]:
    yield from _topology(scenario)
    yield from _tasks(scenario)
    yield from _selections(scenario)
    end = work_end(scenario)
    for number, fault in enumerate(scenario.faults):
        if end and fault.at > end:
            yield f"faults[{number}].at: {fault.at:g} s is after the last work, which ends at {end:g} s"


def _topology(scenario: Scenario) -> Iterator[str]:
    topology, peers = scenario.topology, scenario.peers
    if topology.kind == "clusters" and topology.clusters > peers:
        yield f"topology.clusters: {topology.clusters} clusters of {peers} peers; write at most {peers}"
    if topology.kind == "join" and topology.bootstrap > peers:
        yield f"topology.bootstrap: {topology.bootstrap} nodes of {peers} peers; write at most {peers}"
    if topology.kind == "full" and peers > MAX_FULL:
        yield f'topology.kind: "full" is for at most {MAX_FULL} peers, not {peers}; write "random"'


def _tasks(scenario: Scenario) -> Iterator[str]:
    names: dict[str, None] = {}
    for number, load in enumerate(scenario.task):
        if load.members > scenario.peers:
            yield (
                f"task[{number}].members: {load.members} members of {scenario.peers} peers;"
                f" write at most {scenario.peers}, or 0 for all"
            )
        if load.name in names:
            yield f"task[{number}].name: {load.name!r} is the name of another task; write another name"
        names[load.name] = None
        for role in load.settings:
            if role not in ROLES:
                yield f"task[{number}].settings: there is no {role!r}; write one of {', '.join(ROLES)}"
    if scenario.checks.accuracy is not None and not scenario.task:
        yield "checks.accuracy: there is no task whose model could be measured; leave it out"


def _selections(scenario: Scenario) -> Iterator[str]:
    parts = [(f"faults[{number}]", fault.who) for number, fault in enumerate(scenario.faults)]
    parts += [(f"adversaries[{number}]", part.who) for number, part in enumerate(scenario.adversaries)]
    parts = [(f"{path}.who", who) for path, who in parts]
    parts += [
        (f"adversaries[{number}].dials", part.dials)
        for number, part in enumerate(scenario.adversaries)
        if part.dials is not None and part.dials != "publishers"
    ]
    for path, who in parts:
        if who.count > scenario.peers:
            yield f"{path}.count: {who.count} of {scenario.peers} peers; write at most {scenario.peers}"
        for node in who.nodes:
            if node >= scenario.peers:
                yield f"{path}.nodes: there is no node {node}; write 0 to {scenario.peers - 1}"
