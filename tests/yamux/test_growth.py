"""Windows that grow by round-trip time: when, how far, out of whose memory, and until when."""

from __future__ import annotations

import pytest

from p2p.errors import RemoteProtocolError
from p2p.yamux.budget import WindowBudget
from p2p.yamux.keepalive import RTT_INTERVAL
from p2p.yamux.session import Session
from p2p.yamux.wire import ACK, FIN, INITIAL_WINDOW, MAX_BODY_RECEIVED, MAX_STREAM_WINDOW, RST, SYN
from tests.yamux.frames import DATA, PING, WINDOW_UPDATE, Frame, encode, happened, sent

RTT = 0.1  # seconds


class Download:
    """A session that reads one inbound stream, at times that the test decides."""

    def __init__(self, budget: WindowBudget | None = None, rtt: float = RTT) -> None:
        self.budget = budget or WindowBudget()
        self.session = Session(False, now=0.0, budget=self.budget)
        self.now = 0.0
        self.session.receive_data(encode(WINDOW_UPDATE, SYN, 1), 0.0)
        self.stream = self.session.stream(1)
        if rtt:
            self.learn_rtt(rtt)

    def learn_rtt(self, rtt: float) -> None:
        self.session.ping(self.now)
        [ping] = [frame for frame in sent(self.session) if frame.kind == PING]
        self.now += rtt
        self.session.receive_data(encode(PING, ACK, 0, ping.length), self.now)

    def receive(self, size: int) -> None:
        for at in range(0, size, MAX_BODY_RECEIVED):
            body = bytes(min(MAX_BODY_RECEIVED, size - at))
            self.session.receive_data(encode(DATA, 0, 1, body=body), self.now)
        happened(self.session)

    def pass_window(self, after: float) -> list[Frame]:
        """A whole window comes, and is read `after` seconds; the updates that this causes."""
        self.receive(self.stream.receive_window)
        self.now += after
        self.session.consume(self.stream, self.stream.unread, self.now)
        return [frame for frame in sent(self.session) if frame.kind == WINDOW_UPDATE]


def test_a_window_that_is_used_up_within_four_round_trips_doubles():
    download = Download()
    [update] = download.pass_window(after=2 * RTT)
    assert update.length == 2 * INITIAL_WINDOW
    assert download.stream.receive_window == download.stream.window == 2 * INITIAL_WINDOW
    assert download.budget.reserved == INITIAL_WINDOW


def test_a_window_that_lasts_longer_stays():
    download = Download()
    for _ in range(5):
        [update] = download.pass_window(after=5 * RTT)
        assert update.length == INITIAL_WINDOW
    assert download.budget.reserved == 0


def test_a_window_grows_up_to_16_mib_and_no_further():
    download = Download()
    for _ in range(10):
        download.pass_window(after=RTT)
    assert download.stream.window == download.stream.receive_window == MAX_STREAM_WINDOW
    assert download.budget.reserved == MAX_STREAM_WINDOW - INITIAL_WINDOW


def test_nothing_grows_before_the_round_trip_is_known():
    download = Download(rtt=0.0)
    download.pass_window(after=0.0)
    assert download.stream.window == INITIAL_WINDOW


def test_an_active_stream_asks_for_the_round_trip_and_an_idle_connection_does_not():
    download = Download(rtt=0.0)
    assert all(frame.kind != PING for frame in sent(download.session))
    download.receive(INITIAL_WINDOW)
    download.session.consume(download.stream, INITIAL_WINDOW, 1.0)
    [ping] = [frame for frame in sent(download.session) if frame.kind == PING]
    download.receive(INITIAL_WINDOW)
    download.session.consume(download.stream, INITIAL_WINDOW, 1.0)
    assert all(frame.kind != PING for frame in sent(download.session))  # one at a time
    download.session.receive_data(encode(PING, ACK, 0, ping.length), 1.25)
    assert download.session.rtt == 0.25
    download.now = 1.25 + RTT_INTERVAL - 1
    for after, kinds in ((0.0, [WINDOW_UPDATE]), (1.0, [PING, WINDOW_UPDATE])):
        download.receive(INITIAL_WINDOW)
        download.now += after
        download.session.consume(download.stream, INITIAL_WINDOW, download.now)
        assert [frame.kind for frame in sent(download.session)] == kinds


def test_the_round_trip_time_is_smoothed():
    download = Download(rtt=0.2)
    download.learn_rtt(0.4)
    assert download.session.rtt == pytest.approx(0.3)


def test_a_reader_that_never_reads_costs_the_initial_window():
    download = Download()
    download.receive(INITIAL_WINDOW)
    with pytest.raises(RemoteProtocolError, match="overrun"):
        download.receive(1)
    assert download.budget.reserved == 0


def test_the_window_is_the_bound_whatever_it_grew_to():
    download = Download()
    download.pass_window(after=RTT)
    download.receive(2 * INITIAL_WINDOW)
    with pytest.raises(RemoteProtocolError, match="overrun"):
        download.receive(1)


def test_a_window_without_memory_to_grow_stays_and_works_on():
    download = Download(WindowBudget(3 * INITIAL_WINDOW))
    updates = [download.pass_window(after=RTT)[0].length for _ in range(4)]
    assert updates == [2 * INITIAL_WINDOW, 4 * INITIAL_WINDOW, 4 * INITIAL_WINDOW, 4 * INITIAL_WINDOW]
    assert download.budget.reserved == 3 * INITIAL_WINDOW


def test_two_connections_share_the_memory_of_their_host():
    budget = WindowBudget(INITIAL_WINDOW)
    first, second = Download(budget), Download(budget)
    first.pass_window(after=RTT)
    second.pass_window(after=RTT)
    assert (first.stream.window, second.stream.window) == (2 * INITIAL_WINDOW, INITIAL_WINDOW)
    first.session.reset(1)
    second.pass_window(after=RTT)
    assert second.stream.window == 2 * INITIAL_WINDOW


@pytest.mark.parametrize("how", ["reset", "peer resets", "both finish", "close"])
def test_the_memory_is_given_back_when_the_stream_goes(how):
    download = Download()
    download.pass_window(after=RTT)
    assert download.budget.reserved == INITIAL_WINDOW
    match how:
        case "reset":
            download.session.reset(1)
        case "peer resets":
            download.session.receive_data(encode(WINDOW_UPDATE, RST, 1), download.now)
        case "both finish":
            download.session.receive_data(encode(WINDOW_UPDATE, FIN, 1), download.now)
            download.session.close_write(1)
        case "close":
            download.session.close()
    assert download.budget.reserved == 0


@pytest.mark.parametrize("end", ["read", "discard", "close"])
def test_the_memory_of_unread_bytes_is_kept_until_they_are_read_or_dropped(end):
    """A peer that fills its window and finishes would otherwise get the same memory again and again."""
    download = Download()
    download.pass_window(after=RTT)
    download.receive(2 * INITIAL_WINDOW)
    download.session.receive_data(encode(WINDOW_UPDATE, FIN, 1), download.now)
    download.session.close_write(1)
    assert download.session.num_streams == 0
    download.session.consume(download.stream, 100, download.now)
    assert download.budget.reserved == INITIAL_WINDOW
    match end:
        case "read":
            download.session.consume(download.stream, 2 * INITIAL_WINDOW - 100, download.now)
        case "discard":
            download.session.discard(download.stream, download.now)
        case "close":
            download.session.close()
    assert download.budget.reserved == 0
    download.session.discard(download.stream, download.now)
    assert download.budget.reserved == 0
