from __future__ import annotations

import contextlib
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p import varint
from p2p.errors import RemoteProtocolError
from p2p.gossipsub.wire import (
    MAX_ENTRIES,
    MAX_ID,
    MAX_IDS,
    MAX_PX,
    MAX_RPC,
    MAX_SENT_UNWANTED_IDS,
    MAX_TOPIC,
    MAX_UNWANTED_IDS,
    SMALL_RPC,
    IHave,
    Message,
    Prune,
    Rpc,
    Subscription,
    decode_message,
    decode_rpc,
    encode_message,
    encode_messages,
    encode_rpc,
    message_size,
    slices,
    split,
)
from tests.gossipsub.support import signed

topics = st.text(min_size=1, max_size=20)
ids = st.binary(min_size=1, max_size=60)


def message(data: bytes = b"data", topic: str = "t") -> Message:
    return decode_message(
        encode_message(origin=b"origin", data=data, seqno=b"12345678", topic=topic, signature=b"sig")
    )


rpcs = st.builds(
    Rpc,
    subscriptions=st.lists(st.builds(Subscription, topic=topics, subscribe=st.booleans())).map(tuple),
    messages=st.lists(st.builds(message, data=st.binary(max_size=300), topic=topics), max_size=4).map(tuple),
    ihave=st.lists(
        st.builds(IHave, topic=topics, ids=st.lists(ids, min_size=1).map(tuple)),
        max_size=4,
        unique_by=lambda entry: entry.topic,
    ).map(tuple),
    iwant=st.lists(ids).map(tuple),
    graft=st.lists(topics).map(tuple),
    prune=st.lists(
        st.builds(Prune, topic=topics, backoff=st.none() | st.integers(0, 2**64 - 1)), max_size=4
    ).map(tuple),
    idontwant=st.lists(ids, max_size=30).map(tuple),
)


def field(number: int, data: bytes) -> bytes:
    return varint.encode(number << 3 | 2) + varint.encode(len(data)) + data


@given(rpcs)
def test_an_rpc_survives_encoding(rpc: Rpc) -> None:
    assert decode_rpc(encode_rpc(rpc)) == rpc


def test_an_rpc_has_the_bytes_that_the_specification_says() -> None:
    rpc = Rpc(
        subscriptions=(Subscription(topic="t", subscribe=True), Subscription(topic="u", subscribe=False)),
        messages=(message(),),
        ihave=(IHave(topic="t", ids=(b"\xff\x00", b"b")),),
        iwant=(b"c",),
        graft=("t",),
        prune=(Prune(topic="u", backoff=60), Prune(topic="v")),
        idontwant=(b"d",),
    )
    published = (
        field(1, b"origin") + field(2, b"data") + field(3, b"12345678") + field(4, b"t") + field(5, b"sig")
    )
    control = (
        field(1, field(1, b"t") + field(2, b"\xff\x00") + field(2, b"b"))
        + field(2, field(1, b"c"))
        + field(3, field(1, b"t"))
        + field(4, field(1, b"u") + b"\x18\x3c")
        + field(4, field(1, b"v"))
        + field(5, field(1, b"d"))
    )
    assert encode_rpc(rpc) == (
        field(1, b"\x08\x01" + field(2, b"t"))
        + field(1, b"\x08\x00" + field(2, b"u"))
        + field(2, published)
        + field(3, control)
    )


@given(st.binary(max_size=400))
def test_random_bytes_decode_or_raise_the_typed_error(data: bytes) -> None:
    try:
        rpc = decode_rpc(data)
    except RemoteProtocolError:
        return
    assert decode_rpc(encode_rpc(rpc)) == rpc


@given(rpcs, st.data())
def test_a_damaged_rpc_decodes_or_raises_the_typed_error(rpc: Rpc, data: st.DataObject) -> None:
    encoded = bytearray(encode_rpc(rpc) or b"\0")
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(RemoteProtocolError):
        decode_rpc(bytes(encoded[: data.draw(st.integers(0, len(encoded)))]))


def test_unknown_fields_are_skipped_and_kept_in_forwarded_messages() -> None:
    extended = message().raw + field(20, b"later version")
    rpc = decode_rpc(field(10, b"partial") + field(2, extended) + field(3, field(6, b"extensions")))
    assert rpc.messages[0].data == b"data"
    assert encode_rpc(rpc) == field(2, extended)


def test_peers_to_connect_to_instead_are_taken_from_prune_if_they_signed_where_they_are() -> None:
    peers = field(2, field(1, b"peer") + field(2, b"record")) + field(2, field(1, b"peer")) + field(2, b"")
    prune = field(1, b"t") + peers + b"\x18\x0a"
    expected = Prune(topic="t", backoff=10, records=(b"record",))
    assert decode_rpc(field(3, field(4, prune))).prune == (expected,)
    assert encode_rpc(Rpc(prune=(expected,))) == encode_rpc(Rpc(prune=(Prune(topic="t", backoff=10),)))


def test_no_more_than_sixteen_peers_are_taken_from_a_prune() -> None:
    prune = field(1, b"t") + b"".join(field(2, field(2, b"%d" % number)) for number in range(100))
    [found] = decode_rpc(field(3, field(4, prune))).prune
    assert found.records == tuple(b"%d" % number for number in range(MAX_PX))


def test_message_fields_out_of_order_are_read() -> None:
    raw = field(5, b"sig") + field(4, b"t") + field(2, b"data")
    [found] = decode_rpc(field(2, raw)).messages
    assert (found.topic, found.data, found.signature, found.origin) == ("t", b"data", b"sig", b"")
    assert found.raw == raw


def test_a_topic_that_is_not_utf8_makes_an_rpc_malformed() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_rpc(field(1, b"\x08\x01" + field(2, b"\xff\xfe")))
    with pytest.raises(RemoteProtocolError):
        decode_rpc(field(2, field(4, b"\xff\xfe")))


def test_a_subscription_flood_as_large_as_an_rpc_can_be_is_refused() -> None:
    """CVE-2026-46679: 349 525 subscriptions in one RPC of 4 MB."""
    for entry in (field(1, b""), field(1, b"\x08\x01" + field(2, b"topic"))):
        with pytest.raises(RemoteProtocolError, match="over 5000"):
            decode_rpc(entry * (MAX_RPC // len(entry)))


@pytest.mark.parametrize("number", [1, 2])
def test_more_entries_than_the_limit_make_an_rpc_malformed(number: int) -> None:
    entry = field(number, b"")
    decode_rpc(entry * MAX_ENTRIES)
    with pytest.raises(RemoteProtocolError):
        decode_rpc(entry * (MAX_ENTRIES + 1))


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_more_control_entries_than_the_limit_make_an_rpc_malformed(number: int) -> None:
    entry = field(number, b"")
    decode_rpc(field(3, entry * MAX_ENTRIES))
    with pytest.raises(RemoteProtocolError):
        decode_rpc(field(3, entry * (MAX_ENTRIES + 1)))


def test_ids_over_the_limit_of_an_rpc_are_left_out() -> None:
    many = b"".join(field(2, b"id%d" % number) for number in range(4000))
    rpc = decode_rpc(field(3, field(1, field(1, b"t") + many) + field(1, field(1, b"u") + many)))
    assert [len(entry.ids) for entry in rpc.ihave] == [4000, MAX_IDS - 4000]
    wanted = b"".join(field(1, b"id%d" % number) for number in range(4000))
    rpc = decode_rpc(field(3, field(2, wanted) * 2 + field(5, wanted)))
    assert (len(rpc.iwant), len(rpc.idontwant)) == (MAX_IDS, MAX_UNWANTED_IDS)


def test_empty_and_too_long_ids_and_topics_are_left_out() -> None:
    ids = field(1, b"") + field(1, b"x" * (MAX_ID + 1)) + field(1, b"x" * MAX_ID)
    assert decode_rpc(field(3, field(2, ids))).iwant == (b"x" * MAX_ID,)
    long, longest = "é" * (MAX_TOPIC // 2) + "e", "é" * (MAX_TOPIC // 2)
    entries = b"".join(field(3, field(1, topic.encode())) for topic in ("", long, longest))
    assert decode_rpc(field(3, entries)).graft == (longest,)
    entries = b"".join(field(1, field(2, topic.encode())) for topic in ("", long, longest))
    assert decode_rpc(entries).subscriptions == (Subscription(topic=longest, subscribe=False),)


def count_entries(rpc: Rpc) -> int:
    flat = (rpc.subscriptions, rpc.messages, rpc.iwant, rpc.graft, rpc.prune, rpc.idontwant)
    return sum(map(len, flat)) + sum(len(entry.ids) for entry in rpc.ihave)


@given(rpcs, st.integers(1, 500))
def test_pieces_of_a_split_rpc_keep_everything_within_the_limit(rpc: Rpc, limit: int) -> None:
    pieces = split(rpc, limit)
    for piece in pieces:
        assert len(encode_rpc(piece)) <= limit or count_entries(piece) == 1
        assert len(piece.idontwant) <= MAX_SENT_UNWANTED_IDS
    for name in ("subscriptions", "messages", "iwant", "graft", "prune", "idontwant"):
        assert sum((getattr(piece, name) for piece in pieces), ()) == getattr(rpc, name)
    advertised = [(entry.topic, i) for piece in pieces for entry in piece.ihave for i in entry.ids]
    assert advertised == [(entry.topic, i) for entry in rpc.ihave for i in entry.ids]


def test_a_long_ihave_is_split_into_rpcs_that_rust_accepts() -> None:
    rpc = Rpc(ihave=(IHave(topic="t", ids=tuple(b"%046d" % number for number in range(5000))),))
    pieces = split(rpc)
    assert len(pieces) > 1
    assert all(len(encode_rpc(piece)) <= 65536 for piece in pieces)


def test_a_message_takes_no_more_than_its_size_in_an_rpc() -> None:
    large = signed(1, "t", bytes(1 << 20))
    assert len(encode_rpc(Rpc(messages=(large,)))) <= message_size(large)


@given(rpcs, st.integers(1, 5))
def test_slices_have_few_messages_and_lose_nothing(rpc: Rpc, count: int) -> None:
    first, *rest = slices(rpc, count)
    assert all(0 < len(part.messages) <= count for part in rest)
    assert len(first.messages) <= count
    assert sum((part.messages for part in rest), first.messages) == rpc.messages
    assert all(part == Rpc(messages=part.messages) for part in rest)
    assert dataclasses.replace(first, messages=rpc.messages) == rpc


def test_the_same_small_message_is_decoded_once() -> None:
    data = encode_rpc(Rpc(messages=(signed(1, "t", b"data"),)))
    assert decode_rpc(data) is decode_rpc(bytes(bytearray(data)))
    assert decode_rpc(data) == Rpc(messages=(signed(1, "t", b"data"),))


def test_what_is_large_or_no_message_is_not_kept() -> None:
    for rpc in (Rpc(messages=(signed(1, "t", bytes(SMALL_RPC)),)), Rpc(graft=("t",))):
        data = encode_rpc(rpc)
        assert decode_rpc(data) == rpc
        assert decode_rpc(data) is not decode_rpc(data)


def test_a_malformed_message_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            decode_rpc(b"\x12\xff")


def test_nothing_in_a_decoded_rpc_can_be_changed() -> None:
    """All peers of a process may share it."""
    rpc = decode_rpc(encode_rpc(Rpc(messages=(signed(1, "t", b"data"),))))
    for field in dataclasses.fields(rpc):
        assert isinstance(getattr(rpc, field.name), tuple)
    for message in rpc.messages:
        assert all(isinstance(getattr(message, f.name), bytes | str) for f in dataclasses.fields(message))
    hash(rpc)


def test_messages_encode_as_the_rpc_that_has_them() -> None:
    messages = (signed(1, "t", b"one"), signed(2, "u", bytes(300)))
    assert encode_messages([message.raw for message in messages]) == encode_rpc(Rpc(messages=messages))
    assert encode_messages([]) == b""
