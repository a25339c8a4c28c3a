"""A smaller plan that still fails, to look at instead of the one that was drawn.

Delta debugging (Zeller, Hildebrandt 2002, "Simplifying and Isolating Failure-Inducing Input"): leave out half
of what there is, then quarters, and so on; whatever still fails is the plan from then on. Faults go first,
then work, settings of the network, nodes, and time; again from the start while anything got smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

from sim.scenario.model import NetworkSettings, Scenario

LISTS = ("faults", "churn", "adversaries", "task", "dht", "gossip")  # in the order in which they are emptied
SHORTEST = 0.5  # seconds: what lasts no longer is not cut in half any more
FEWEST = 2  # peers

Fails = Callable[[Scenario], bool]


def shrink(plan: Scenario, fails: Fails, budget: int) -> Scenario:
    """The smallest plan found by asking `fails` at most `budget` times; `plan` itself fails, unasked.

    Whatever comes back has failed. A run must depend on nothing but the plan, or this finds nonsense.
    """
    shrinker = _Shrinker(plan, fails, budget)
    while shrinker.left > 0 and shrinker.round():
        pass
    return shrinker.plan


class _Shrinker:
    def __init__(self, plan: Scenario, fails: Fails, budget: int) -> None:
        self.plan = plan
        self.left = budget
        self._fails = fails
        self._asked = {plan.model_dump_json(): None}

    def round(self) -> bool:
        """Tries everything once; whether anything got smaller."""
        before = self.plan
        for name in LISTS:
            self._empty(name)
        self._simplify_network()
        self._remove_peers()
        for number in range(len(self.plan.faults)):
            self._spare_nodes(number)
        self._shorten()
        return self.plan is not before

    def _try(self, **changes: Any) -> bool:
        """Whether the plan with these changes fails; then it is the plan."""
        try:
            candidate = Scenario.model_validate({**self.plan.model_dump(), **changes})
        except ValidationError:
            return False  # not a scenario: less work than faults need, for example
        key = candidate.model_dump_json()
        if self.left <= 0 or key in self._asked:
            return False
        self._asked[key] = None
        self.left -= 1
        if not self._fails(candidate):
            return False
        self.plan = candidate
        return True

    def _fewer(self, items: Sequence[Any], attempt: Callable[[list[Any]], bool]) -> None:
        """Leaves out ever smaller parts of `items`; `attempt` tells whether it still fails with the rest."""
        rest, size = list(items), len(items)
        while size:
            start = 0
            while start < len(rest):
                without = rest[:start] + rest[start + size :]
                if attempt(without):
                    rest = without
                else:
                    start += size
            size //= 2

    def _empty(self, name: str) -> None:
        self._fewer(getattr(self.plan, name), lambda rest: self._try(**{name: rest}))

    def _simplify_network(self) -> None:
        """Sets to its default whatever of the network does not matter."""
        if self._try(network=NetworkSettings()):
            return
        for name, value in NetworkSettings().model_dump().items():
            self._try(network=self.plan.network.model_dump() | {name: value})

    def _remove_peers(self) -> None:
        """Fewer nodes: the upper half goes, then a quarter, …, and with them their faults."""
        size = self.plan.peers // 2
        while size:
            while self.plan.peers - size >= FEWEST and self._try(
                **_with_peers(self.plan, self.plan.peers - size)
            ):
                pass
            size //= 2

    def _spare_nodes(self, number: int) -> None:
        """Strikes fewer nodes by one of the faults."""

        def attempt(nodes: list[Any]) -> bool:
            faults = [fault.model_dump() for fault in self.plan.faults]
            faults[number]["who"]["nodes"] = nodes
            return self._try(faults=faults)

        self._fewer(self.plan.faults[number].who.nodes, attempt)

    def _shorten(self) -> None:
        """Halves what takes time: each fault, the rounds of tasks, each load."""
        for name in ("faults", "churn", "task", "dht", "gossip"):
            for number in range(len(getattr(self.plan, name))):
                while self._halve(name, number):
                    pass

    def _halve(self, name: str, number: int) -> bool:
        entries = [entry.model_dump() for entry in getattr(self.plan, name)]
        entry = entries[number]
        if name == "task":
            if entry["rounds"] == 1:
                return False
            entry["rounds"] //= 2
        else:
            if entry["seconds"] <= SHORTEST:
                return False
            entry["seconds"] = round(entry["seconds"] / 2, 3)
        return self._try(**{name: entries})


def _with_peers(plan: Scenario, peers: int) -> dict[str, Any]:
    """What changes with the number of peers: whoever is not there is struck by nothing and takes no part."""
    value = plan.model_dump()
    for name in ("faults", "adversaries"):
        kept = []
        for entry in value[name]:
            who = entry["who"]
            named = bool(who["nodes"])
            who["nodes"] = [node for node in who["nodes"] if node < peers]
            who["count"] = min(who["count"], peers)
            if who["nodes"] or not named:
                kept.append(entry)
        value[name] = kept
    for load in value["task"]:
        load["members"] = min(load["members"], peers)
    topology = value["topology"]
    topology["clusters"] = max(2, min(topology["clusters"], peers))
    topology["bootstrap"] = min(topology["bootstrap"], peers)
    return {"peers": peers, **{name: value[name] for name in ("faults", "adversaries", "task", "topology")}}
