from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.directory.wire import ANY, MAX_MESSAGE, Announce, Ask, Body, Progress, decode, encode
from federated.manifest import MAX_ROUNDS
from p2p.errors import RemoteProtocolError

BODIES = st.one_of(
    st.builds(
        Announce,
        envelope=st.binary(max_size=1024),
        round=st.integers(0, MAX_ROUNDS),
        progress=st.sampled_from(Progress),
    ),
    st.builds(Ask, task=st.sampled_from([ANY, bytes(32), b"\xff" * 32])),
)


@given(BODIES, st.integers(0, 1 << 40))
def test_a_message_comes_back(body: Body, expiry: int) -> None:
    data = encode(body, expiry)
    assert decode(data) == (body, expiry)
    assert len(data) <= MAX_MESSAGE


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(data)


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "ask", "task": bytes(31), "expiry": 1},
        {"kind": "ask", "task": bytes(32), "expiry": True},
        {"kind": "ask", "task": bytes(32), "expiry": -1},
        {"kind": "ask", "task": bytes(32), "expiry": 1 << 41},
        {"kind": "ask", "task": bytes(32), "expiry": 1, "more": 1},
        {"expiry": 1, "kind": "ask", "task": bytes(32)},
        {"kind": "tell", "expiry": 1},
        {"kind": "announce", "envelope": bytes(1025), "round": 0, "progress": "running", "expiry": 1},
        {"kind": "announce", "envelope": b"", "round": MAX_ROUNDS + 1, "progress": "running", "expiry": 1},
        {"kind": "announce", "envelope": b"", "round": True, "progress": "running", "expiry": 1},
        {"kind": "announce", "envelope": b"", "round": 0, "progress": "lost", "expiry": 1},
        ["ask"],
    ],
)
def test_what_is_out_of_bounds_or_in_another_form_is_refused(values: object) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(msgpack.packb(values))


def test_what_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        decode(bytes(MAX_MESSAGE + 1))
