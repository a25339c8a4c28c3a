"""The page of the documentation that says with whom we were tried, and what came of it.

Pure: the same versions and results give the same bytes, without dates or timings, so that a run that
finds what the last one found changes nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tests.interop.cases import CASES
from tests.interop.installed import Implementation

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "interop.md"

TRANSPORTS = {"tcp": "TCP", "ws": "WebSocket"}
SECURITIES = {"noise": "noise", "tls": "TLS"}
DIALERS = ("we", "they")

INTRODUCTION = """\
# Interoperability

Other implementations of libp2p run as programs of their own against a host of ours, one connection a row.
On it every case is tried with streams of ours to them and of theirs to us, whoever dialed.
`tox -e interop` installs them from their registries, runs all of this and writes this page
(`tests/interop/test_matrix.py`, `tests/interop/table.py`): it is not edited by hand.
"""

HARNESS = """\
## libp2p's own test

`python -m tests.interop.transport` is the program that the
[transport test](https://github.com/libp2p/unified-testing/blob/master/docs/write-a-transport-test-app.md)
starts as listener and as dialer: environment variables, a list in redis for the address, YAML on stdout.
It also understands the older names and answers them in JSON. See `tests/interop/transport.py`.
"""


@dataclass(frozen=True, slots=True, order=True)
class Combination:
    """One connection of the matrix: keys of `TRANSPORTS` and `SECURITIES`, one of `DIALERS`."""

    implementation: str
    transport: str
    security: str
    dialer: str

    def __str__(self) -> str:
        return f"{self.implementation}-{self.transport}-{self.security}-{self.dialer}"


def combinations(implementations: Sequence[str]) -> list[Combination]:
    """Every connection of the matrix, in the order of the table."""
    return [Combination(*each) for each in product(implementations, TRANSPORTS, SECURITIES, DIALERS)]


def page(
    implementations: Sequence[Implementation],
    passed: Mapping[Combination, Collection[str]],
    impossible: Mapping[Combination, Mapping[str, str]],
) -> str:
    """The whole page. `passed` has the cases that worked, `impossible` why a peer cannot do others.

    Raises `ValueError` for a connection or a case that is in neither: nothing is left out in silence.
    """
    rows = [
        _row(each, passed.get(each, ()), impossible.get(each, {}))
        for each in combinations([implementation.name for implementation in implementations])
    ]
    sections = [
        INTRODUCTION,
        "## Implementations\n\n" + _table(("Name", "Installed"), map(_installed, implementations)),
        "## Cases\n\n" + _table(("Case", "What happens"), _explained()),
        "## Results\n\n" + _table(("With", "Transport", "Security", "Who dials", *CASES), rows),
        *_notes(impossible),
        HARNESS,
    ]
    return "\n".join(sections)


def _installed(implementation: Implementation) -> tuple[str, str]:
    return (
        implementation.name,
        ", ".join(f"{package} {version}" for package, version in implementation.versions),
    )


def _explained() -> Iterator[tuple[str, str]]:
    for name, case in CASES.items():
        yield name, " ".join((inspect.getdoc(case) or "").split())


def _row(combination: Combination, passed: Collection[str], impossible: Mapping[str, str]) -> tuple[str, ...]:
    missing = [case for case in CASES if case not in passed and case not in impossible]
    if missing:
        raise ValueError(f"{combination}: nothing is known of {', '.join(missing)}")
    return (
        combination.implementation,
        TRANSPORTS[combination.transport],
        SECURITIES[combination.security],
        combination.dialer,
        *("yes" if case in passed else "not with this peer" for case in CASES),
    )


def _notes(impossible: Mapping[Combination, Mapping[str, str]]) -> Iterator[str]:
    """What "not with this peer" means, a reason once."""
    concerned: dict[str, list[str]] = {}
    for each in sorted(impossible):
        for case, reason in impossible[each].items():
            where = f"{TRANSPORTS[each.transport]}, {SECURITIES[each.security]}, {each.dialer} dial"
            concerned.setdefault(f"{each.implementation}, {case}: {reason}", []).append(where)
    if concerned:
        lines = [f"- {reason} ({'; '.join(where)})\n" for reason, where in concerned.items()]
        yield "Not with this peer:\n\n" + "".join(lines)


def _table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
