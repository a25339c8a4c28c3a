import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import AuthenticationFailed, LocalProtocolError, RemoteProtocolError
from p2p.noise import cipher as cipher_module
from p2p.noise.cipher import MAX_NONCE, Cipher
from p2p.noise.wire import HEADER, MAX_MESSAGE, MAX_PLAINTEXT
from tests.noise.reference import framed, nonce

KEYS = bytes([1]) * 32, bytes([2]) * 32


def pair() -> tuple[Cipher, Cipher]:
    return (
        Cipher(send_key=KEYS[0], receive_key=KEYS[1]),
        Cipher(send_key=KEYS[1], receive_key=KEYS[0]),
    )


def sealed(counter: int, plain: bytes) -> bytes:
    return framed(ChaCha20Poly1305(KEYS[0]).encrypt(nonce(counter), plain, None))


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize("size", [1, 100, MAX_PLAINTEXT - 1, MAX_PLAINTEXT])
def test_what_fits_is_one_frame(size: int) -> None:
    sender, receiver = pair()
    frame = sender.encrypt(pattern(size))
    assert frame == sealed(0, pattern(size))
    assert receiver.receive_data(frame) == pattern(size)


@pytest.mark.parametrize("size", [MAX_PLAINTEXT + 1, 2 * MAX_PLAINTEXT, 1 << 20])
def test_what_does_not_fit_becomes_full_frames_and_a_rest(size: int) -> None:
    sender, receiver = pair()
    data = pattern(size)
    frames = sender.encrypt(memoryview(data))
    pieces = [data[at : at + MAX_PLAINTEXT] for at in range(0, size, MAX_PLAINTEXT)]
    assert frames == b"".join(sealed(index, piece) for index, piece in enumerate(pieces))
    assert receiver.receive_data(bytearray(frames)) == data
    assert not receiver.mid_frame


def test_nothing_is_no_frame() -> None:
    sender, _ = pair()
    assert bytes(sender.encrypt(b"")) == b""
    assert bytes(sender.encrypt(b"first")) == sealed(0, b"first")


def test_each_direction_counts_on_its_own() -> None:
    ours, theirs = pair()
    for word in (b"one", b"two", b"three"):
        assert bytes(theirs.receive_data(ours.encrypt(word))) == word
    assert ours.receive_data(theirs.encrypt(b"back")) == b"back"


def test_frames_of_any_size_are_taken_also_empty_ones() -> None:
    _, receiver = pair()
    assert receiver.receive_data(sealed(0, b"")) == b""
    assert not receiver.mid_frame
    assert receiver.receive_data(sealed(1, b"") + sealed(2, b"x") + sealed(3, b"")) == b"x"
    assert receiver.receive_data(sealed(4, bytes(MAX_PLAINTEXT))) == bytes(MAX_PLAINTEXT)


def test_frames_come_out_the_same_byte_by_byte() -> None:
    sender, receiver = pair()
    frames = sender.encrypt(b"hello") + sealed(1, b"") + sealed(2, b"world")
    out = b"".join(bytes(receiver.receive_data(frames[at : at + 1])) for at in range(len(frames)))
    assert receiver.receive_data(b"") == b""
    assert out == b"helloworld"
    assert not receiver.mid_frame


@given(
    st.lists(st.binary(max_size=60), max_size=8),
    st.lists(st.integers(min_value=1, max_value=50), min_size=1, max_size=30),
)
def test_frames_come_out_the_same_however_they_are_cut(plains: list[bytes], cuts: list[int]) -> None:
    _, receiver = pair()
    frames = b"".join(sealed(index, plain) for index, plain in enumerate(plains))
    out = bytearray()
    for cut in cuts:
        out += receiver.receive_data(frames[:cut])
        frames = frames[cut:]
    out += receiver.receive_data(frames)
    assert out == b"".join(plains)
    assert not receiver.mid_frame


def test_a_large_transfer_survives_cuts_around_the_frame_borders() -> None:
    sender, receiver = pair()
    data = pattern(5 * MAX_PLAINTEXT)
    frames = memoryview(sender.encrypt(data))
    out = bytearray()
    for step in (1, HEADER, MAX_MESSAGE, MAX_MESSAGE + HEADER + 1, 2 * MAX_MESSAGE):
        out += receiver.receive_data(frames[:step])
        frames = frames[step:]
    out += receiver.receive_data(frames)
    assert out == data


def test_at_most_one_partial_frame_is_buffered() -> None:
    sender, receiver = pair()
    frames = bytes(sender.encrypt(pattern(3 * MAX_PLAINTEXT)))
    for at in range(0, len(frames) - 1, 1000):
        receiver.receive_data(frames[at : min(at + 1000, len(frames) - 1)])
        assert len(receiver._partial) < HEADER + MAX_MESSAGE
    assert receiver.mid_frame


@pytest.mark.parametrize("size", [0, 1, 15])
def test_a_frame_too_short_for_its_tag_is_refused_at_its_length(size: int) -> None:
    _, receiver = pair()
    with pytest.raises(RemoteProtocolError, match=f"{size} bytes is too short"):
        receiver.receive_data(size.to_bytes(2, "big"))
    _, receiver = pair()
    receiver.receive_data(b"\x00")
    receiver.receive_data(b"")
    with pytest.raises(RemoteProtocolError, match=f"{size} bytes is too short"):
        receiver.receive_data(bytes([size]))


def test_a_changed_bit_anywhere_is_never_taken() -> None:
    frame = sealed(0, b"some plaintext") + sealed(1, b"more")
    for at in range(len(frame)):
        _, receiver = pair()
        changed = bytearray(frame)
        changed[at] ^= 1 << at % 8
        try:
            out = receiver.receive_data(changed)
        except RemoteProtocolError:
            with pytest.raises(AuthenticationFailed):
                receiver.receive_data(sealed(0, b"some plaintext"))
        else:  # a length that announces more than came
            assert out == b"" or (out == b"some plaintext" and at >= 32)
            assert receiver.mid_frame


@pytest.mark.parametrize(
    "frame",
    [sealed(1, b"x"), sealed(0, b"w") + sealed(0, b"w"), framed(bytes(16)), framed(bytes(MAX_MESSAGE))],
    ids=["skipped", "replayed", "zeros", "large zeros"],
)
def test_a_frame_out_of_turn_is_refused(frame: bytes) -> None:
    _, receiver = pair()
    with pytest.raises(AuthenticationFailed):
        receiver.receive_data(frame)


def test_our_own_frames_are_refused_when_they_come_back() -> None:
    sender, _ = pair()
    with pytest.raises(AuthenticationFailed):
        sender.receive_data(sender.encrypt(b"reflected"))


def test_the_last_nonce_is_never_used_to_send() -> None:
    sender, _ = pair()
    sender._sent = MAX_NONCE - 1
    with pytest.raises(LocalProtocolError):
        sender.encrypt(bytes(MAX_PLAINTEXT + 1))
    assert sender.encrypt(b"last") == sealed(MAX_NONCE - 1, b"last")
    with pytest.raises(LocalProtocolError):
        sender.encrypt(b"x")
    assert sender.encrypt(b"") == b""


def test_the_last_nonce_is_never_used_to_receive() -> None:
    _, receiver = pair()
    receiver._received = MAX_NONCE - 1
    assert receiver.receive_data(sealed(MAX_NONCE - 1, b"last")) == b"last"
    with pytest.raises(RemoteProtocolError, match="nonces"):
        receiver.receive_data(sealed(MAX_NONCE, b"x"))


def test_a_cryptography_without_in_place_functions_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cipher_module, "_encrypt_into", cipher_module._encrypt_copying)
    monkeypatch.setattr(cipher_module, "_decrypt_into", cipher_module._decrypt_copying)
    sender, receiver = pair()
    data = pattern(2 * MAX_PLAINTEXT + 7)
    frames = sender.encrypt(data)
    assert frames[: HEADER + MAX_MESSAGE] == sealed(0, data[:MAX_PLAINTEXT])
    assert receiver.receive_data(frames) == data


@given(st.binary(max_size=300))
def test_random_bytes_are_never_taken(data: bytes) -> None:
    _, receiver = pair()
    try:
        assert receiver.receive_data(data) == b""
    except RemoteProtocolError:
        return
    assert receiver.mid_frame == bool(data)
