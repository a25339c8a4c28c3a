from __future__ import annotations

import pytest

from p2p.keys import KeyPair
from p2p.limits.streams import StreamLimit
from p2p.peer_id import PeerId

ALICE, BOB, CAROL = (PeerId.from_public_key(KeyPair.from_seed(bytes([n]) * 32).public) for n in range(3))


class FakeStream:
    def __init__(self, peer):
        self.peer, self.codes = peer, []

    def reset(self, code=0):
        self.codes.append(code)


def test_one_stream_too_many_of_a_peer_is_reset_and_the_others_are_served():
    limit = StreamLimit(2, code=7)
    streams = [FakeStream(ALICE) for _ in range(3)]
    with limit.admitted(streams[0]) as first, limit.admitted(streams[1]) as second:
        with limit.admitted(streams[2]) as third, limit.admitted(FakeStream(BOB)) as other:
            assert (first, second, third, other) == (True, True, False, True)
        assert limit.open == {ALICE: 2}
    assert [stream.codes for stream in streams] == [[], [], [7]]
    assert limit.open == {}


def test_the_total_holds_over_all_peers():
    limit = StreamLimit(2, total=2)
    late = FakeStream(CAROL)
    with limit.admitted(FakeStream(ALICE)), limit.admitted(FakeStream(BOB)), limit.admitted(late) as third:
        assert not third
    assert late.codes == [0]


def test_a_stream_that_fails_is_counted_no_more():
    limit = StreamLimit(1)
    with pytest.raises(ValueError, match="handler"), limit.admitted(FakeStream(ALICE)):
        raise ValueError("the handler fails")
    with limit.admitted(FakeStream(ALICE)) as served:
        assert served
