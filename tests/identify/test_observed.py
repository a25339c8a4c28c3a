from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.address import parse_address
from p2p.identify.observed import (
    ACTIVATION,
    MAX_CONFIRMED,
    MAX_VOTES,
    MAX_VOTES_A_GROUP,
    VOTE_TTL,
    ObservedAddresses,
    Report,
)
from p2p.peer_id import PeerId

LISTEN = [
    parse_address("/ip4/10.0.0.5/tcp/4001"),
    parse_address("/ip6/fd00::5/tcp/4001"),
    parse_address("/ip4/10.0.0.5/tcp/4002/ws"),
]
OURS = parse_address("/ip4/5.6.7.8/tcp/4001")


def peer(number: int) -> PeerId:
    return PeerId(b"\x12\x20" + number.to_bytes(32, "big"))


def report(number: int, observed=OURS, address: str | None = None, outbound: bool = False) -> Report:
    """From observer `number`, by default from an IPv4 address of its own."""
    address = address or f"/ip4/8.{number >> 16}.{number >> 8 & 255}.{number & 255}/tcp/999"
    return Report(observer=peer(number), address=parse_address(address), outbound=outbound, observed=observed)


def confirm(machine: ObservedAddresses, observed, first: int = 1) -> None:
    for number in range(first, first + ACTIVATION):
        machine.handle_report(report(number, observed), LISTEN)


def test_an_address_is_ours_once_four_observers_agree():
    machine = ObservedAddresses()
    assert [machine.handle_report(report(number), LISTEN) for number in range(1, 6)] == [
        False,
        False,
        False,
        True,
        False,
    ]
    assert machine.confirmed == (OURS,)


def test_one_observer_with_many_ids_or_many_reports_is_one():
    machine = ObservedAddresses()
    for number in range(1, 100):
        machine.handle_report(report(number, address="/ip4/8.8.8.8/tcp/999"), LISTEN)
        machine.handle_report(report(1), LISTEN)
    assert machine.confirmed == ()


def test_one_owner_of_an_ipv6_network_is_one_observer():
    machine = ObservedAddresses()
    ours = parse_address("/ip6/2a00::5/tcp/4001")
    for number in range(1, 100):
        machine.handle_report(report(number, ours, f"/ip6/2a01:0:0:11{number:02x}::1/tcp/9"), LISTEN)
    assert machine.confirmed == ()
    for number in range(1, 5):
        machine.handle_report(report(number, ours, f"/ip6/2a01:0:{number}::1/tcp/9"), LISTEN)
    assert machine.confirmed == (ours,)


@pytest.mark.parametrize(
    ("observed", "observer"),
    [
        ("/ip4/5.6.7.8/udp/4001/quic-v1", None),  # we do not listen on this
        ("/ip6/2a00::5/tcp/4001", None),  # seen over IPv4
        ("/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/999"),
        ("/ip4/192.168.0.9/tcp/4001", None),  # nobody on the internet sees that
        ("/ip4/5.6.7.8/tcp/4001", "/ip4/192.168.0.7/tcp/999"),  # nobody at home does
        ("/ip4/10.0.0.5/tcp/4001", "/ip4/10.0.0.7/tcp/999"),  # we know that
        ("/dns4/example.org/tcp/4001", None),
        ("/memory/5", "/memory/7"),
        (f"/ip4/5.6.7.8/tcp/4001/p2p/{peer(9)}/p2p-circuit", None),
        ("/ip4/5.6.7.8/tcp/4001", f"/ip4/8.8.8.8/tcp/1/p2p/{peer(9)}/p2p-circuit"),  # a relay's view
    ],
)
def test_what_the_observer_cannot_have_seen_is_no_vote(observed, observer):
    machine = ObservedAddresses()
    machine.handle_report(report(1, parse_address(observed), observer), LISTEN)
    assert len(machine._votes) == 0


def test_a_private_address_counts_among_private_peers():
    machine = ObservedAddresses()
    mapped = parse_address("/ip4/192.168.0.9/tcp/31000")
    for number in range(1, 5):
        machine.handle_report(report(number, mapped, f"/ip4/192.168.0.{number}/tcp/999"), LISTEN)
    assert machine.confirmed == (mapped,)


def test_what_is_seen_of_our_own_dials_counts_only_with_a_port_on_which_we_listen():
    machine = ObservedAddresses()
    ephemeral = parse_address("/ip4/5.6.7.8/tcp/50123")
    for number in range(1, 5):
        machine.handle_report(report(number, ephemeral, outbound=True), LISTEN)
    assert len(machine._votes) == 0
    for number in range(1, 5):
        machine.handle_report(report(number, OURS, outbound=True), LISTEN)
    assert machine.confirmed == (OURS,)


def test_a_new_report_takes_the_place_of_the_observers_last_one():
    machine = ObservedAddresses()
    confirm(machine, OURS)
    moved = parse_address("/ip4/5.6.7.9/tcp/4001")
    assert machine.handle_report(report(1, moved), LISTEN)
    assert machine.confirmed == ()


def test_votes_expire_some_time_after_their_observers_have_left():
    machine = ObservedAddresses()
    confirm(machine, OURS)
    assert machine.next_deadline() is None
    machine.handle_disconnected(peer(99), 0.0)
    machine.handle_disconnected(peer(1), 100.0)
    assert machine.next_deadline() == 100.0 + VOTE_TTL
    assert not machine.handle_timer(100.0 + VOTE_TTL - 1)
    assert machine.confirmed == (OURS,)
    assert machine.handle_timer(100.0 + VOTE_TTL)
    assert machine.confirmed == ()
    assert machine.next_deadline() is None


def test_an_observer_that_returns_keeps_its_vote_alive():
    machine = ObservedAddresses()
    confirm(machine, OURS)
    machine.handle_disconnected(peer(1), 0.0)
    machine.handle_report(report(1), LISTEN)
    assert machine.next_deadline() is None


def test_few_addresses_of_a_kind_are_ours_at_once_and_the_most_seen_win():
    machine = ObservedAddresses()
    addresses = [parse_address(f"/ip4/5.6.7.{number}/tcp/4001") for number in range(1, 6)]
    for index, address in enumerate(addresses):
        confirm(machine, address, first=1 + 100 * index)
        for extra in range(index):
            machine.handle_report(report(90 + 100 * index + extra, address), LISTEN)
    confirm(machine, parse_address("/ip4/5.6.7.8/tcp/4002/ws"), first=900)
    assert machine.confirmed[:MAX_CONFIRMED] == tuple(reversed(addresses))[:MAX_CONFIRMED]
    assert len(machine.confirmed) == MAX_CONFIRMED + 1


def test_votes_are_bounded_in_all_and_in_a_group():
    machine = ObservedAddresses()
    for number in range(1, 3 * MAX_VOTES_A_GROUP):
        machine.handle_report(report(number, address="/ip4/9.9.9.9/tcp/1"), LISTEN)
    assert len(machine._votes) == MAX_VOTES_A_GROUP
    for number in range(100, 100 + 2 * MAX_VOTES):
        machine.handle_report(report(number, parse_address(f"/ip4/5.6.7.8/tcp/{number}")), LISTEN)
    assert len(machine._votes) == MAX_VOTES


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 7), st.integers(0, 3), st.booleans())))
def test_nothing_is_ours_that_fewer_than_four_groups_have_seen_last(steps):
    machine = ObservedAddresses()
    last: dict[int, tuple[int, int]] = {}
    for number, group, port, leaves in steps:
        observed = parse_address(f"/ip4/5.6.7.8/tcp/{4001 + port}")
        machine.handle_report(report(number, observed, f"/ip4/8.8.8.{group}/tcp/1"), LISTEN)
        last[number] = (port, group)
        if leaves:
            machine.handle_disconnected(peer(number), 0.0)
        for address in machine.confirmed:
            port = int(str(address).split("/")[4]) - 4001
            assert len({group for seen, group in last.values() if seen == port}) >= ACTIVATION
    machine.handle_timer(VOTE_TTL)
    assert machine.next_deadline() is None
