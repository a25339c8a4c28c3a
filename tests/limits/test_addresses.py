from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.limits.addresses import MAX_BUCKETS, AddressLimits

FOUR = ip_address("9.9.9.9")


def admitted(limits, ips, now=0.0):
    return sum(limits.admit(ip_address(ip), now) is None for ip in ips)


def test_one_ipv4_address_has_eight_connections():
    limits = AddressLimits()
    assert admitted(limits, ["9.9.9.9"] * 10) == 8
    assert "8 connections already" in (limits.admit(FOUR, 0.0) or "")
    assert limits.admit(ip_address("9.9.9.10"), 0.0) is None
    limits.release(FOUR)
    assert limits.admit(FOUR, 0.0) is None


def test_an_ipv6_customer_counts_as_one_address_and_a_site_has_sixty_four():
    limits = AddressLimits()
    assert admitted(limits, [f"2600:1:2:{subnet:x}::1" for subnet in range(10)]) == 8
    assert admitted(limits, [f"2600:1:2:{site:x}00::1" for site in range(1, 256)]) == 56
    assert limits.admit(ip_address("2600:1:3::1"), 0.0) is None


def test_new_connections_come_at_a_rate_after_a_burst():
    limits = AddressLimits(per_address=1000)
    assert admitted(limits, ["9.9.9.9"] * 20) == 16
    assert "more than 0.2 connections a second" in (limits.admit(FOUR, 4.9) or "")
    assert limits.admit(FOUR, 5.1) is None
    assert limits.admit(FOUR, 5.1) is not None
    assert admitted(limits, ["9.9.9.9"] * 20, now=1e6) == 16


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_is_exempt_unless_it_is_limited(ip):
    assert admitted(AddressLimits(), [ip] * 1000) == 1000
    assert admitted(AddressLimits(limit_loopback=True), [ip] * 1000) == 8


def test_what_has_no_ip_address_is_exempt():
    limits = AddressLimits(per_address=1, burst=1)
    for _ in range(10):
        assert limits.admit(None, 0.0) is None
        limits.release(None)
    limits.release(ip_address("::1"))


def test_the_rates_of_a_bounded_number_of_addresses_are_remembered():
    limits = AddressLimits(burst=1)
    for number in range(MAX_BUCKETS + 1):
        ip = ip_address(0x01000000 + number)
        assert limits.admit(ip, 0.0) is None
        limits.release(ip)
    assert limits.admit(ip_address(0x01000001), 0.0) is not None  # still remembered
    assert limits.admit(ip_address(0x01000000), 0.0) is None  # forgotten


STEPS = st.lists(st.tuples(st.sampled_from(["9.9.9.9", "9.9.9.8", "2600::1", "::1"]), st.booleans()))


@given(STEPS)
def test_what_is_open_is_within_the_limit_and_nothing_is_left_when_all_is_closed(steps):
    limits, still_open, now = AddressLimits(per_address=3, burst=1000), [], 0.0
    for text, opening in steps:
        ip = ip_address(text)
        now += 1
        if opening and limits.admit(ip, now) is None:
            still_open.append(ip)
        elif not opening and ip in still_open:
            still_open.remove(ip)
            limits.release(ip)
        assert all(ip.is_loopback or still_open.count(ip) <= 3 for ip in still_open)
    for ip in still_open:
        limits.release(ip)
    assert not limits._open
