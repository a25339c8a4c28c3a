import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import LocalProtocolError, NegotiationFailed, RemoteProtocolError
from p2p.multistream.negotiation import MAX_PROPOSALS, Initiator, ProtocolAgreed, Responder
from p2p.multistream.wire import HEADER, encode_line

NA = b"\x03na\n"


def lines(*texts: str) -> bytes:
    return b"".join(map(encode_line, texts))


def negotiate(initiator: Initiator, responder: Responder, cuts: list[int]) -> None:
    """Carries bytes both ways, in pieces of the sizes `cuts`, until nobody says anything."""
    sizes = itertools.cycle(cuts)
    while True:
        there, back = initiator.data_to_send(), responder.data_to_send()
        if not there and not back:
            return
        for data, sink in ((there, responder), (back, initiator)):
            while data:
                size = next(sizes)
                sink.receive_data(data[:size])
                data = data[size:]


@given(st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=9))
def test_both_sides_agree_on_the_first_common_protocol(cuts: list[int]) -> None:
    initiator, responder = Initiator(["/a", "/b/2", "/c"]), Responder({"/c", "/b/2"})
    negotiate(initiator, responder, cuts)
    agreed = ProtocolAgreed(protocol="/b/2", surplus=b"")
    assert initiator.next_event() == responder.next_event() == agreed
    assert initiator.next_event() is None


def test_the_initiator_says_header_and_first_proposal_at_once() -> None:
    initiator = Initiator(["/noise", "/tls"])
    assert initiator.data_to_send() == HEADER + b"\x07/noise\n"
    assert initiator.data_to_send() == b""
    initiator.receive_data(HEADER + NA)
    assert initiator.data_to_send() == b"\x05/tls\n"


def test_the_responder_says_its_header_at_once_and_echoes() -> None:
    responder = Responder(["/noise"])
    assert responder.data_to_send() == HEADER
    responder.receive_data(HEADER + lines("/tls", "/noise"))
    assert responder.data_to_send() == NA + b"\x07/noise\n"


def test_what_comes_behind_the_accepted_proposal_is_the_protocols() -> None:
    responder = Responder(["/p"])
    responder.receive_data(HEADER + lines("/no", "/p") + lines("/p") + b"data")
    assert responder.next_event() == ProtocolAgreed(protocol="/p", surplus=b"\x03/p\ndata")
    initiator = Initiator(["/p"])
    initiator.receive_data(HEADER + lines("/p") + b"data")
    assert initiator.next_event() == ProtocolAgreed(protocol="/p", surplus=b"data")


def test_a_peer_that_refuses_everything_is_a_failed_negotiation() -> None:
    initiator, responder = Initiator(["/a", "/b"]), Responder([])
    with pytest.raises(NegotiationFailed, match="none of /a, /b"):
        negotiate(initiator, responder, [100])


def test_a_callable_decides_what_is_supported() -> None:
    asked: list[str] = []

    def supports(protocol: str) -> bool:
        asked.append(protocol)
        return protocol.startswith("/x/")

    responder = Responder(supports)
    responder.receive_data(HEADER + lines("/y/1", "/x/é"))
    assert responder.next_event() == ProtocolAgreed(protocol="/x/é", surplus=b"")
    assert asked == ["/y/1", "/x/é"]


@pytest.mark.parametrize(
    "proposal",
    [b"ls", b"na", b"/multistream/1.0.0", b"/P", b"/p ", b"/p\x00", b"", b"\xff\xfe", b"/p\n/p", b"p"],
)
def test_anything_but_the_same_bytes_is_not_available(proposal: bytes) -> None:
    responder = Responder(["/p"])
    responder.data_to_send()
    responder.receive_data(HEADER + bytes([len(proposal) + 1]) + proposal + b"\n")
    assert responder.data_to_send() == NA
    assert responder.next_event() is None
    responder.receive_data(lines("/p"))
    assert responder.next_event() is not None


def test_the_last_allowed_proposal_can_still_be_accepted() -> None:
    responder = Responder(["/p"])
    responder.receive_data(HEADER + lines("/x") * (MAX_PROPOSALS - 1) + lines("/p"))
    assert responder.next_event() is not None


def test_a_peer_that_keeps_guessing_is_given_up() -> None:
    responder = Responder(["/p"])
    responder.receive_data(HEADER + lines("/x") * (MAX_PROPOSALS - 1))
    assert responder.next_event() is None
    with pytest.raises(NegotiationFailed, match=str(MAX_PROPOSALS)):
        responder.receive_data(lines("/x"))


@pytest.mark.parametrize("answer", [b"/other", b"ls", b"", b"NA", b"/multistream/1.0.0", b"/b"])
def test_an_answer_to_something_else_is_refused(answer: bytes) -> None:
    initiator = Initiator(["/a", "/b"])
    with pytest.raises(RemoteProtocolError, match="answered"):
        initiator.receive_data(HEADER + bytes([len(answer) + 1]) + answer + b"\n")


@pytest.mark.parametrize("machine", [Initiator(["/a"]), Responder(["/a"])])
def test_garbage_is_refused_at_its_first_byte(machine: Initiator | Responder) -> None:
    with pytest.raises(RemoteProtocolError):
        machine.receive_data(b"G")


def test_there_must_be_something_to_propose() -> None:
    with pytest.raises(LocalProtocolError):
        Initiator([])
    with pytest.raises(LocalProtocolError):
        Initiator(["/a\n"])


def test_a_finished_negotiation_takes_no_more() -> None:
    responder = Responder(["/p"])
    responder.receive_data(HEADER + lines("/p"))
    with pytest.raises(LocalProtocolError):
        responder.receive_data(b"data")


@given(st.binary(max_size=100), st.booleans())
def test_random_bytes_end_in_a_typed_error_or_a_wait(data: bytes, initiator: bool) -> None:
    machine = Initiator(["/a"]) if initiator else Responder(["/a"])
    try:
        machine.receive_data(HEADER + data)
    except (RemoteProtocolError, NegotiationFailed):
        return
    event = machine.next_event()
    assert event is None or event.protocol == "/a"
