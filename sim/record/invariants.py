"""What must hold at every moment of a run: a violation is written down when it happens, with who and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

MAX_VIOLATIONS = 1000  # kept with their details; all are counted

Rule = Literal[
    "no exception escapes from a node",
    "nobody gets a message before it is published",
    "nobody gets a message twice",
    "a message id is used once",
    "honest nodes agree on the model of every round",
    "no honest node accuses another",
    "a mesh above its bound is pruned",
    "no honest node graylists another",
]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule was broken at a virtual second, at a node; `seen` says how."""

    at: float
    node: int
    rule: Rule
    seen: str

    def __str__(self) -> str:
        return f"{self.seen}, at node {self.node} after {self.at:.3f} s"


class Violations:
    """The violations of a run, in order."""

    def __init__(self) -> None:
        self.first: list[Violation] = []  # the first `MAX_VIOLATIONS`
        self.counts: dict[Rule, int] = dict.fromkeys(RULES, 0)

    def __len__(self) -> int:
        return sum(self.counts.values())

    def add(self, at: float, node: int, rule: Rule, seen: str) -> None:
        """One more."""
        self.counts[rule] += 1
        if len(self.first) < MAX_VIOLATIONS:
            self.first.append(Violation(at=at, node=node, rule=rule, seen=seen))

    def first_of(self, rule: Rule) -> Violation | None:
        """The earliest violation of a rule that was kept, None without one."""
        return next((violation for violation in self.first if violation.rule == rule), None)
