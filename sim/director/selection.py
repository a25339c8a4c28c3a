"""Who is meant: selections, members and adversaries, drawn from the run's randomness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from federated.manifest import MAX_MEMBERS

if TYPE_CHECKING:
    from random import Random

    from sim.scenario.model import Adversary, Scenario, Selection, TaskLoad


def picked(who: Selection, peers: int, rng: Random) -> list[int]:
    """The nodes that `who` means among 0..peers-1, ascending; a share means one node at least."""
    if who.nodes:
        return sorted(who.nodes)
    return drawn(range(peers), who.count or share_of(peers, who.share), rng)


def drawn(nodes: Sequence[int], count: int, rng: Random) -> list[int]:
    """`count` of the nodes at random, ascending; all of them when there are not so many."""
    return sorted(rng.sample(nodes, count)) if count < len(nodes) else sorted(nodes)


def share_of(count: int, share: float) -> int:
    """How many of `count` a share means: rounded, but one at least unless the share is 0."""
    return min(count, max(1, round(count * share))) if share > 0 else 0


def members_of(load: TaskLoad, peers: int, rng: Random) -> list[int]:
    """The nodes that take part in a task, ascending: `members` of them, never more than there are."""
    return drawn(range(peers), min(load.members or MAX_MEMBERS, peers), rng)


def adversaries_of(scenario: Scenario, rng: Random) -> dict[int, Adversary]:
    """The nodes that are not honest, ascending; a node that is meant twice plays the first role.

    Whoever is drawn (and not named) is none of the bootstrap nodes, nor of those that adversaries dial by
    name, as long as there are others.
    """
    first = scenario.topology.bootstrap if scenario.topology.kind == "join" else 0
    targets = [each.dials for each in scenario.adversaries if each.dials and each.dials != "publishers"]
    dialed = {node for target in targets for node in target.nodes}  # only asked, never gone through
    roles: dict[int, Adversary] = {}
    for adversary in scenario.adversaries:
        who = adversary.who
        nodes = list(who.nodes)
        if not nodes:
            count = who.count or share_of(scenario.peers, who.share)
            free = [node for node in range(scenario.peers) if node not in roles]
            nodes = drawn([node for node in free if node >= first and node not in dialed] or free, count, rng)
        for node in nodes:
            roles.setdefault(node, adversary)
    return dict(sorted(roles.items()))


def attacks(
    adversaries: Mapping[int, Adversary], publishers: Sequence[int], honest: Sequence[int], rng: Random
) -> dict[int, list[int]]:
    """Whom adversaries dial that have no place in the topology; a share or a count is drawn for each anew."""
    found: dict[int, list[int]] = {}
    for node, adversary in adversaries.items():
        if adversary.dials == "publishers":
            found[node] = list(dict.fromkeys(publishers))
        elif adversary.dials is not None and adversary.dials.nodes:
            found[node] = [target for target in adversary.dials.nodes if target != node]
        elif adversary.dials is not None:
            places = picked(adversary.dials, len(honest), rng)
            found[node] = [honest[place] for place in places]
    return found


def first_up(nodes: Sequence[int], alive: Callable[[int], bool], rng: Random) -> int | None:
    """A random node that runs, None when none does: the first one, going round from a random place."""
    if not nodes:
        return None
    start = rng.randrange(len(nodes))
    for step in range(len(nodes)):
        node = nodes[(start + step) % len(nodes)]
        if alive(node):
            return node
    return None
