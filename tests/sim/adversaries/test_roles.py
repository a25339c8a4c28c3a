"""Roles by name."""

from __future__ import annotations

from typing import Any

import pytest

from p2p.errors import InvalidInput
from sim.adversaries import HONEST, ROLES, Role, role
from sim.adversaries.gossip import Censor, Covert
from sim.adversaries.poisoning import ATTACKS
from tests.gossipsub.support import peer_number


@pytest.mark.parametrize("name", ROLES)
def test_every_role_changes_one_thing_and_says_which(name: str) -> None:
    found = role(name)
    assert sum(map(bool, (found.router, found.answer, found.corrupt, found.attack, found.conspires))) == 1
    assert found.description[0].islower()
    assert not found.description.endswith(".")


def test_the_honest_change_nothing() -> None:
    assert Role(description=HONEST.description) == HONEST


def test_an_unknown_role_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"'saint'.*censor.*dht-liar.*nan"):
        role("saint")


def test_a_censor_has_the_victim_of_its_settings() -> None:
    peers = [peer_number(number) for number in range(3)]
    router = role("censor", {"victim": 2}, peers).router
    assert router is not None
    assert issubclass(router, Censor)
    assert router.victim == peers[2].raw
    assert Censor.victim == b""


def test_a_covert_one_turns_when_its_settings_say_so() -> None:
    router = role("covert", {"turns_at": 7.5}).router
    assert router is not None
    assert issubclass(router, Covert)
    assert (router.turns_at, Covert.turns_at) == (7.5, 120.0)


def test_a_poisoner_does_what_its_settings_say() -> None:
    assert role("poisoner").attack is ATTACKS["sign"]
    assert role("poisoner", {"attack": "alie"}).attack is ATTACKS["alie"]
    assert all(name in ROLES["poisoner"].description for name in ATTACKS)


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("dropper", {"victim": 1}, "has no setting"),
        ("censor", {"victims": 1}, "has no setting"),
        ("censor", {"victim": 9}, "from 0 to 2, not 9"),
        ("censor", {"victim": "me"}, "not 'me'"),
        ("censor", {"victim": True}, "not True"),
        ("covert", {"turns_at": "late"}, "not 'late'"),
        ("covert", {"turns_at": -1}, "not -1"),
        ("covert", {"turns_at": False}, "not False"),
        ("covert", {"victim": 1}, "has no setting"),
        ("poisoner", {"attack": "kindness"}, "one of sign, gauss, alie, ipm, label-flip, not 'kindness'"),
        ("poisoner", {"attack": [1]}, r"not \[1\]"),
    ],
)
def test_wrong_settings_are_refused(name: str, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        role(name, settings, [peer_number(number) for number in range(3)])
