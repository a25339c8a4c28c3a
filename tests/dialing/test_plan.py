"""In which order addresses are tried, and when: the clock is a number."""

from __future__ import annotations

from ipaddress import ip_interface
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from p2p.address import parse_address
from p2p.dialing.plan import ATTEMPT_DELAY, MAX_DIALED_ADDRESSES, MAX_IN_FLIGHT, DialPlan, order

HERE = [ip_interface("127.0.0.1/8"), ip_interface("192.168.1.7/24"), ip_interface("::1/128")]


def addresses(*texts):
    return [parse_address(text) for text in texts]


def tcp(*ports):
    return addresses(*(f"/ip4/9.9.9.9/tcp/{port}" for port in ports))


def ordered(*texts, interfaces=HERE):
    return [str(address) for address in order(addresses(*texts), interfaces)]


def test_ipv6_and_ipv4_take_turns():
    fours = [f"/ip4/9.9.9.{number}/tcp/1" for number in range(3)]
    sixes = [f"/ip6/2600::{number}/tcp/1" for number in range(1, 3)]
    assert ordered(*fours, *sixes) == [sixes[0], fours[0], sixes[1], fours[1], fours[2]]


def test_a_network_that_we_share_comes_first_and_private_ones_of_others_last():
    shared, public, foreign = "/ip4/192.168.1.9/tcp/1", "/ip4/9.9.9.9/tcp/1", "/ip4/10.0.0.1/tcp/1"
    loopback = "/ip4/127.0.0.1/tcp/1"
    assert ordered(foreign, loopback, public, shared) == [shared, public, foreign, loopback]
    assert ordered(shared, public, interfaces=[]) == [public, shared]


def test_an_address_of_one_link_is_not_taken_for_a_shared_network():
    link, public = "/ip6/fe80::1/tcp/1", "/ip4/9.9.9.9/tcp/1"
    assert ordered(link, public, interfaces=[ip_interface("fe80::2/64")]) == [public, link]


def test_loopback_comes_first_when_the_peer_is_on_this_machine():
    loopback, own = "/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.7/tcp/1"
    assert ordered(own, "/ip4/9.9.9.9/tcp/1", loopback)[:2] == [own, loopback]


def test_tcp_comes_before_websocket_within_one_network():
    ws, tls, plain = "/ip4/9.9.9.9/tcp/1/ws", "/ip4/9.9.9.9/tcp/2/tls/ws", "/ip4/9.9.9.9/tcp/3"
    assert ordered(ws, tls, plain) == [plain, ws, tls]
    assert ordered(ws, "/ip4/192.168.1.9/tcp/1/ws", plain)[0] == "/ip4/192.168.1.9/tcp/1/ws"


@given(
    st.lists(
        st.sampled_from(tcp(1, 2, 3) + addresses("/memory/1", "/ip6/::1/tcp/1", "/ip6/2600::1/tcp/1/ws"))
    )
)
def test_an_order_loses_nothing_and_is_stable(given_addresses):
    result = order(given_addresses, HERE)
    assert sorted(map(str, result)) == sorted(map(str, given_addresses))
    assert order(result, HERE) == result


def test_attempts_start_a_quarter_of_a_second_apart():
    plan = DialPlan()
    plan.add(tcp(1, 2, 3))
    assert plan.next_deadline() == -inf
    assert plan.start(10.0) == tcp(1)[0]
    assert plan.start(10.0) is None
    assert plan.next_deadline() == 10.0 + ATTEMPT_DELAY
    assert plan.start(10.25) == tcp(2)[0]
    assert list(plan.in_flight) == tcp(1, 2)


def test_a_failure_starts_the_next_attempt_at_once():
    plan = DialPlan()
    plan.add(tcp(1, 2))
    plan.start(10.0)
    plan.handle_failure(tcp(1)[0])
    assert plan.start(10.0) == tcp(2)[0]
    assert not plan.idle
    plan.handle_failure(tcp(2)[0])
    assert plan.idle
    assert plan.next_deadline() is None


def test_eight_attempts_run_at_most():
    plan = DialPlan()
    plan.add(tcp(*range(1, 20)))
    for number in range(MAX_IN_FLIGHT):
        assert plan.start(float(number)) is not None
    assert plan.start(100.0) is None
    assert plan.next_deadline() is None
    plan.handle_failure(tcp(1)[0])
    assert plan.start(100.0) is not None


def test_addresses_that_come_later_are_sorted_in_and_count_once():
    plan = DialPlan()
    plan.add(tcp(1, 2))
    plan.start(0.0)
    plan.add(tcp(1, 2, 3) + addresses("/ip6/2600::1/tcp/1"))
    assert plan.start(1.0) == addresses("/ip6/2600::1/tcp/1")[0]
    assert [plan.start(2.0), plan.start(3.0), plan.start(4.0)] == [*tcp(2, 3), None]


def test_a_dial_tries_a_bounded_number_of_addresses():
    plan = DialPlan()
    plan.add(tcp(*range(1, 100)))
    assert plan.left_out == 99 - MAX_DIALED_ADDRESSES
    tried = 0
    while (address := plan.start(tried * 1.0)) is not None:
        plan.handle_failure(address)
        tried += 1
    assert tried == MAX_DIALED_ADDRESSES


@given(st.lists(st.tuples(st.sampled_from(["add", "start", "fail"]), st.integers(1, 40)), max_size=80))
def test_whatever_happens_each_address_starts_once_and_in_time(steps):
    plan, now, started, failed_at, last = DialPlan(), 0.0, [], None, -inf
    for what, number in steps:
        now += number / 100
        match what:
            case "add":
                plan.add(tcp(number))
            case "start":
                if (address := plan.start(now)) is not None:
                    assert failed_at is not None or now >= last + ATTEMPT_DELAY
                    started.append(address)
                    last, failed_at = now, None
            case "fail" if plan.in_flight:
                plan.handle_failure(next(iter(plan.in_flight)))
                failed_at = now
        assert len(plan.in_flight) <= MAX_IN_FLIGHT
    assert len(started) == len(set(started)) <= MAX_DIALED_ADDRESSES
