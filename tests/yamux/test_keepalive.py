import pytest

from p2p.errors import ConnectionLost
from p2p.yamux.keepalive import KEEPALIVE_IDLE, PONG_TIMEOUT, Keepalive


def test_a_silent_peer_is_pinged_and_then_given_up():
    keepalive = Keepalive(now=100.0)
    assert keepalive.next_deadline() == 100.0 + KEEPALIVE_IDLE
    assert keepalive.handle_timer(129.9, ping_waits=False) is None
    assert keepalive.handle_timer(130.0, ping_waits=True) == 1
    assert keepalive.next_deadline() == 130.0 + PONG_TIMEOUT
    assert keepalive.handle_timer(139.9, ping_waits=False) is None
    with pytest.raises(ConnectionLost, match="10 s"):
        keepalive.handle_timer(140.0, ping_waits=False)


def test_bytes_from_the_peer_put_the_ping_off():
    keepalive = Keepalive(now=0.0)
    keepalive.heard(20.0)
    assert keepalive.handle_timer(30.0, ping_waits=False) is None
    assert keepalive.next_deadline() == 50.0


def test_a_ping_that_did_not_leave_yet_is_not_missed():
    keepalive = Keepalive(now=0.0)
    keepalive.ping(30.0)
    assert keepalive.handle_timer(40.0, ping_waits=True) is None
    assert keepalive.next_deadline() == 50.0
    with pytest.raises(ConnectionLost):
        keepalive.handle_timer(50.0, ping_waits=False)


def test_one_ping_is_on_its_way_at_a_time():
    keepalive = Keepalive(now=0.0)
    assert keepalive.ping(1.0) == 1
    assert keepalive.ping(2.0) is None
    assert keepalive.receive_pong(1, 3.5) == 2.5
    assert keepalive.ping(4.0) == 2


def test_only_the_pong_of_the_last_ping_counts():
    keepalive = Keepalive(now=0.0)
    assert keepalive.receive_pong(0, 1.0) is None
    keepalive.ping(1.0)
    assert keepalive.receive_pong(2, 2.0) is None
    assert keepalive.receive_pong(1, 3.0) == 2.0
    assert keepalive.receive_pong(1, 4.0) is None


def test_ping_values_wrap_around_at_32_bits():
    keepalive = Keepalive(now=0.0)
    keepalive._value = 0xFFFFFFFF
    assert keepalive.ping(0.0) == 0


def test_a_peer_that_sends_without_answering_is_alive():
    keepalive = Keepalive(now=0.0)
    keepalive.ping(0.0)
    keepalive.heard(9.0)
    assert keepalive.handle_timer(10.0, ping_waits=False) is None
    assert keepalive.next_deadline() == 19.0
    with pytest.raises(ConnectionLost):
        keepalive.handle_timer(19.0, ping_waits=False)
