"""Whole tasks with drawn committees in which liars are a quorum now and then, by seed.

    POISON   the committees of one or two rounds certify a model that is not what its updates make
    SLANDER  a leader wants to restore the model before a true block, which it says is a fraud

What liars certified must be undone, once, and the task must end; a true block must stand.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from federated.rounds.actions import Recompute
from federated.rounds.events import Recomputed, Verdict
from federated.rounds.messages import Fraud
from tests.federated.rounds.network import INITIAL, Network, Node
from tests.federated.rounds.test_fraud import Cabal, panel_of, restorings, until_certified
from tests.search.byzantine import Outcome

ROUNDS, MEMBERS, SEATS = 7, 16, 4
LIMIT = 200.0  # seconds


def search_fraud(seed: int) -> Outcome:
    """Runs one seed."""
    rng = Random(seed)
    network = Network(MEMBERS, seed, rounds=ROUNDS, committee=SEATS, training=(0.1, 0.5))
    bad = rng.choice((0, 1, 2))
    cabal = Cabal(network, *(range(bad, bad + rng.choice((1, 2))) if bad else ()))
    network.start()
    if not bad:
        _slander(network, cabal)
    try:
        network.finish(within=LIMIT)
    except AssertionError as exc:
        return Outcome(seed=seed, honest=False, broken=f"liveness: {exc}")
    return Outcome(seed=seed, honest=False, broken=_fault(network, bad))


def _slander(network: Network, cabal: Cabal) -> None:
    """The first leader of round 2, and one that tells it so, call the block of round 1 a fraud."""

    def recompute(node: Node, action: Recompute) -> Recomputed:
        found = network.compute_again(node, action)
        return replace(found, verdict=Verdict.DIFFERS) if cabal.is_liar(node) else found

    network.recompute = recompute
    until_certified(network, 1)
    panel = panel_of(network, 2)
    leader = panel.members[panel.committee.leader(2, network.certified[1], 1)]
    accuser = network.nodes[(leader + 1) % MEMBERS]
    cabal.liars = 1 << leader
    network._publish(accuser, Fraud(round=1, block=network.blocks[1].hash))


def _fault(network: Network, bad: int) -> str | None:
    """The rule that the task has broken by its end; `bad` is the first round of a bad committee."""
    found = restorings(network)
    if not bad:
        return f"slander: a true block is undone in {found}" if found else None
    before = INITIAL.digest if bad == 1 else network.certified[bad - 1]
    if not found:
        return "stands: what liars certified was not undone"
    if len(found) > 1 or network.certified[found[0]] != before:
        return f"once: models are restored in {found}"
    return None
