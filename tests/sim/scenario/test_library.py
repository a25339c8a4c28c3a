"""Scenarios are found by name or path; whatever is wrong with one is said in one line."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import InvalidInput
from sim.scenario.library import MAX_FILE, load, names, parse, with_changes
from sim.scenario.model import Scenario, Selection

SHIPPED = [
    "asymmetric",
    *(f"attack-{name}" for name in ("censor", "cold-boot", "colocation", "committee", "covert-flash")),
    "attack-degrade",
    *(f"attack-eclipse-{name}" for name in ("network", "one", "publishers")),
    *("blackout", "byzantine-trainers", "censor", "churn", "dht", "digits", "disk-full"),
    *("endurance", "flash-crowd", "geo", "gossip", "join", "lossy", "mixed", "partition", "poisoned-dht"),
    *("slow-processor", "slow-reader"),
]


def test_every_shipped_scenario_says_what_it_shows() -> None:
    assert list(names()) == SHIPPED
    for description in names().values():
        assert 40 < len(description) < 110
        assert description.endswith(".")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_scenario_has_the_name_of_its_file_and_takes_other_sizes(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    for peers in (3, 50, 10_000):
        assert with_changes(scenario, peers=peers).peers == peers


def test_fewer_peers_mean_fewer_of_everything() -> None:
    small = with_changes(load("mixed"), peers=3, rung="cores")
    assert (small.peers, small.rung, small.task[0].members) == (3, "cores", 3)
    assert with_changes(load("disk-full"), peers=1).faults[0].who.count == 1
    assert with_changes(load("join"), peers=2).topology.bootstrap == 2


def test_whom_adversaries_dial_are_no_more_than_there_are() -> None:
    [network] = with_changes(load("attack-eclipse-network"), peers=10).adversaries
    assert isinstance(network.dials, Selection)
    assert network.dials.count == 10
    [publishers] = with_changes(load("attack-eclipse-publishers"), peers=10).adversaries
    assert publishers.dials == "publishers"
    text = b'name = "x"\npeers = 5\n[[adversaries]]\nrole = "x"\nwho = { count = 1 }\ndials = { nodes = [5] }'
    with pytest.raises(InvalidInput, match=r"adversaries\[0\].dials.nodes: there is no node 5"):
        parse(text, "test")


def test_more_peers_do_not_make_a_task_larger_than_it_was_written() -> None:
    assert with_changes(load("mixed"), peers=1000).task[0].members == 10
    assert with_changes(load("digits"), peers=1000).task[0].members == 0  # all that a task may have


def test_nothing_changed_is_the_same_scenario() -> None:
    assert with_changes(load("mixed")) == load("mixed")


def test_a_size_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^scenario gossip with 0 peers: peers: "):
        with_changes(load("gossip"), peers=0)
    text = b'name = "x"\n[[faults]]\nkind = "hold"\nat = 1\nwho = { nodes = [7] }'
    with pytest.raises(
        InvalidInput, match=r"^scenario x with 5 peers: faults\[0\].who.nodes: there is no node 7"
    ):
        with_changes(parse(text, "test"), peers=5)
    with pytest.raises(InvalidInput, match=r"^scenario gossip: rung: "):
        with_changes(load("gossip"), rung="ladder")  # type: ignore[arg-type]


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(InvalidInput, match="no scenario 'gosip'; did you mean 'gossip'"):
        load("gosip")
    with pytest.raises(InvalidInput, match="no scenario 'xyz'; there are asymmetric, "):
        load("xyz")


def test_a_file_is_a_scenario_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\npeers = 7\n')
    assert load(str(path)) == Scenario(name="mine", peers=7)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^cannot read scenario missing.toml: No such file"):
        load("missing.toml")
    path = tmp_path / "large.toml"
    path.write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(InvalidInput, match="more than 1048576 bytes"):
        load(str(path))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"peers = 5", "test: name: is missing; write it"),
        (b'name = "x"\npers = 5', "test: pers: there is no such setting; did you mean 'peers'?"),
        (b'name = "x"\nzzz = 5', "test: zzz: there is no such setting"),
        (b'name = "x"\npeers = "many"', "test: peers: Input should be a valid integer"),
        (b'name = "x"\n[[gossip]]\nrate = 0', "test: gossip[0].rate: Input should be greater than 0"),
        (b'name = "x"\n[[faults]]\nat = 1', 'test: faults[0]: the kind is missing; write kind = "crash"'),
        (b'name = "x"\n[[faults]]\nat = 1\nkind = "flood"', "test: faults[0]: Input tag 'flood' found"),
        (
            b'name = "x"\n[[faults]]\nat = 1\nkind = "hold"\nwho = { shar = 1 }',
            "test: faults[0].who.shar: there is no such setting; did you mean 'share'?",
        ),
        (
            b'name = "x"\n[[faults]]\nat = 1\nkind = "hold"\nwho = { share = 0.5, count = 1 }',
            "test: faults[0].who: write exactly one of nodes, share (over 0) and count (over 0)",
        ),
        (b'name = "x"\npeers = 0\nsettle = -1', "(and 1 more)"),
        (b'name = "x"\ntask = [{ members = 51 }]', "test: task[0].members: 51 members of 50 peers"),
        (b"name = ", "test: not TOML: "),
        (b"\xff", "test: not TOML: "),
        (b"a = " + b"[" * 100_000, "test: not TOML: "),
    ],
)
def test_a_mistake_is_one_line_with_file_and_field(text: bytes, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text, "test")
    assert problem in str(caught.value)
    assert str(caught.value).startswith("test: ")
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_whatever_a_file_holds_is_a_scenario_or_a_line(data: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        parse(data, "test")
