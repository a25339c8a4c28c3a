import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import AuthenticationFailed, LocalProtocolError, RemoteProtocolError
from p2p.noise import cipher as cipher_module
from p2p.noise.cipher import MAX_NONCE, Cipher
from p2p.noise.wire import HEADER, MAX_MESSAGE, MAX_PLAINTEXT
from p2p.scratch import OPENED_SIZE, SEALED_SIZE, Scratch
from p2p.stream import MAX_BLOCK, SecureChannel
from tests.noise.reference import framed, nonce

KEYS = bytes([1]) * 32, bytes([2]) * 32


def pair() -> tuple[Cipher, Cipher]:
    return (
        Cipher(send_key=KEYS[0], receive_key=KEYS[1]),
        Cipher(send_key=KEYS[1], receive_key=KEYS[0]),
    )


def sealed(counter: int, plain: bytes) -> bytes:
    return framed(ChaCha20Poly1305(KEYS[0]).encrypt(nonce(counter), plain, None))


def blocks(data: bytes) -> list[memoryview]:
    return [memoryview(data)[at : at + MAX_BLOCK] for at in range(0, len(data), MAX_BLOCK)]


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize("size", [1, 100, MAX_PLAINTEXT - 1, MAX_PLAINTEXT])
def test_what_fits_is_one_frame(size: int) -> None:
    sender, receiver = pair()
    frame = sender.seal([pattern(size)])
    assert frame == sealed(0, pattern(size))
    assert receiver.open(frame) == pattern(size)


@pytest.mark.parametrize("size", [MAX_PLAINTEXT + 1, 2 * MAX_PLAINTEXT, 1 << 20])
def test_what_does_not_fit_becomes_full_frames_and_a_rest(size: int) -> None:
    sender, receiver = pair()
    data = pattern(size)
    frames = sender.seal(blocks(data))
    pieces = [data[at : at + MAX_PLAINTEXT] for at in range(0, size, MAX_PLAINTEXT)]
    assert frames == b"".join(sealed(index, piece) for index, piece in enumerate(pieces))
    assert receiver.open(bytearray(frames)) == data
    assert not receiver.mid_frame


def test_nothing_is_no_frame() -> None:
    sender, _ = pair()
    assert bytes(sender.seal([])) == b""
    assert bytes(sender.seal([b"first"])) == sealed(0, b"first")


def test_each_direction_counts_on_its_own() -> None:
    ours, theirs = pair()
    for word in (b"one", b"two", b"three"):
        assert bytes(theirs.open(ours.seal([word]))) == word
    assert ours.open(theirs.seal([b"back"])) == b"back"


def test_frames_of_any_size_are_taken_also_empty_ones() -> None:
    _, receiver = pair()
    assert receiver.open(sealed(0, b"")) == b""
    assert not receiver.mid_frame
    assert receiver.open(sealed(1, b"") + sealed(2, b"x") + sealed(3, b"")) == b"x"
    assert receiver.open(sealed(4, bytes(MAX_PLAINTEXT))) == bytes(MAX_PLAINTEXT)


def test_frames_come_out_the_same_byte_by_byte() -> None:
    sender, receiver = pair()
    frames = bytes(sender.seal([b"hello"])) + sealed(1, b"") + sealed(2, b"world")
    out = b"".join(bytes(receiver.open(frames[at : at + 1])) for at in range(len(frames)))
    assert receiver.open(b"") == b""
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
        out += receiver.open(frames[:cut])
        frames = frames[cut:]
    out += receiver.open(frames)
    assert out == b"".join(plains)
    assert not receiver.mid_frame


def test_a_large_transfer_survives_cuts_around_the_frame_borders() -> None:
    sender, receiver = pair()
    data = pattern(5 * MAX_PLAINTEXT)
    frames = sender.seal(blocks(data))
    out = bytearray()
    for step in (1, HEADER, MAX_MESSAGE, MAX_MESSAGE + HEADER + 1, 2 * MAX_MESSAGE):
        out += receiver.open(frames[:step])
        frames = frames[step:]
    out += receiver.open(frames)
    assert out == data


def test_at_most_one_partial_frame_is_buffered() -> None:
    sender, receiver = pair()
    frames = bytes(sender.seal(blocks(pattern(3 * MAX_PLAINTEXT))))
    for at in range(0, len(frames) - 1, 1000):
        receiver.open(frames[at : min(at + 1000, len(frames) - 1)])
        assert len(receiver._partial) < HEADER + MAX_MESSAGE
    assert receiver.mid_frame


@pytest.mark.parametrize("size", [0, 1, 15])
def test_a_frame_too_short_for_its_tag_is_refused_at_its_length(size: int) -> None:
    _, receiver = pair()
    with pytest.raises(RemoteProtocolError, match=f"{size} bytes is too short"):
        receiver.open(size.to_bytes(2, "big"))
    _, receiver = pair()
    receiver.open(b"\x00")
    receiver.open(b"")
    with pytest.raises(RemoteProtocolError, match=f"{size} bytes is too short"):
        receiver.open(bytes([size]))


def test_a_changed_bit_anywhere_is_never_taken() -> None:
    frame = sealed(0, b"some plaintext") + sealed(1, b"more")
    for at in range(len(frame)):
        _, receiver = pair()
        changed = bytearray(frame)
        changed[at] ^= 1 << at % 8
        try:
            out = receiver.open(changed)
        except RemoteProtocolError:
            with pytest.raises(AuthenticationFailed):
                receiver.open(sealed(0, b"some plaintext"))
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
        receiver.open(frame)


def test_our_own_frames_are_refused_when_they_come_back() -> None:
    sender, _ = pair()
    with pytest.raises(AuthenticationFailed):
        sender.open(sender.seal([b"reflected"]))


def test_the_last_nonce_is_never_used_to_send() -> None:
    sender, _ = pair()
    sender._sent = MAX_NONCE - 1
    with pytest.raises(LocalProtocolError):
        sender.seal([b"x", b"y"])
    assert sender.seal([b"last"]) == sealed(MAX_NONCE - 1, b"last")
    with pytest.raises(LocalProtocolError):
        sender.seal([b"x"])
    assert sender.seal([]) == b""


def test_the_last_nonce_is_never_used_to_receive() -> None:
    _, receiver = pair()
    receiver._received = MAX_NONCE - 1
    assert receiver.open(sealed(MAX_NONCE - 1, b"last")) == b"last"
    with pytest.raises(RemoteProtocolError, match="nonces"):
        receiver.open(sealed(MAX_NONCE, b"x"))


def test_a_cryptography_without_in_place_functions_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cipher_module, "_encrypt_into", cipher_module._encrypt_copying)
    monkeypatch.setattr(cipher_module, "_decrypt_into", cipher_module._decrypt_copying)
    sender, receiver = pair()
    data = pattern(2 * MAX_PLAINTEXT + 7)
    frames = sender.seal(blocks(data))
    assert frames[: HEADER + MAX_MESSAGE] == sealed(0, data[:MAX_PLAINTEXT])
    assert receiver.open(frames) == data


@given(st.binary(max_size=300))
def test_random_bytes_are_never_taken(data: bytes) -> None:
    _, receiver = pair()
    try:
        assert receiver.open(data) == b""
    except RemoteProtocolError:
        return
    assert receiver.mid_frame == bool(data)


def test_a_cipher_is_a_secure_channel_without_a_voice_of_its_own() -> None:
    channel: SecureChannel = pair()[0]
    assert channel.data_to_send() == b""
    assert not channel.ended


def test_several_blocks_of_any_size_are_a_frame_each() -> None:
    sender, receiver = pair()
    plains = [b"a", bytearray(b"bc"), memoryview(b"xdefx")[1:4], b"", bytes(MAX_BLOCK)]
    frames = bytes(sender.seal(plains))
    assert frames == b"".join(sealed(index, bytes(plain)) for index, plain in enumerate(plains))
    assert receiver.open(frames) == b"abcdef" + bytes(MAX_BLOCK)


def test_a_block_too_large_for_a_frame_is_refused_before_anything_is_encrypted() -> None:
    sender, _ = pair()
    with pytest.raises(LocalProtocolError, match=f"{MAX_BLOCK + 1} bytes"):
        sender.seal([b"first", bytes(MAX_BLOCK + 1)])
    assert sender.seal([b"first"]) == sealed(0, b"first")


def test_results_use_one_memory_which_the_next_call_overwrites() -> None:
    scratch = Scratch()
    sender = Cipher(send_key=KEYS[0], receive_key=KEYS[1], scratch=scratch)
    receiver = Cipher(send_key=KEYS[1], receive_key=KEYS[0], scratch=scratch)
    first = sender.seal([b"one"])
    plain = receiver.open(first)
    second = sender.seal([b"two"])
    assert first.obj is second.obj
    assert plain == b"one"
    assert receiver.open(second).obj is plain.obj
    assert plain == b"two"


def test_more_than_the_shared_memory_holds_gets_memory_of_its_own() -> None:
    sender, receiver = pair()
    data = pattern(max(OPENED_SIZE, SEALED_SIZE) + 1)
    frames = sender.seal(blocks(data))
    assert len(frames.obj) == len(frames)
    assert receiver.open(frames) == data
