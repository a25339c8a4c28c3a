"""The transport phase of Noise, without I/O: plaintext into frames and back.

Each direction has its own key and counts its frames from 0; there is no rekeying. The keys come from
noiseprotocol's split, the frames go through cryptography directly, many at a time and into one buffer:
noiseprotocol would make two copies a frame, refuse memoryviews and let oversized frames out.
Source: the Noise Protocol Framework, revision 34, "5.1. The CipherState object" and "12.4. The
ChaChaPoly cipher functions"; libp2p/specs noise/README.md, "Wire Format".
"""

from __future__ import annotations

from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from p2p.errors import AuthenticationFailed, LocalProtocolError, RemoteProtocolError
from p2p.noise.wire import HEADER, LENGTH, MAX_PLAINTEXT, TAG
from p2p.stream import Data

MAX_NONCE = (1 << 64) - 1  # reserved and never used; Noise, "5.1. The CipherState object"
_NONCE = Struct("<4xQ")  # 4 zero bytes, then the counter


class Cipher:
    """Both directions of one connection after its handshake."""

    def __init__(self, *, send_key: bytes, receive_key: bytes) -> None:
        self._seal = ChaCha20Poly1305(send_key)
        self._open = ChaCha20Poly1305(receive_key)
        self._sent = 0  # frames, and so the next nonce
        self._received = 0
        self._partial = bytearray()  # the beginning of one frame, at most HEADER + MAX_MESSAGE - 1 bytes
        self._failed = False

    @property
    def mid_frame(self) -> bool:
        """Whether an unfinished frame is buffered."""
        return bool(self._partial)

    def encrypt(self, data: Data) -> bytearray:
        """`data` in as few frames as it fits, ready to send; nothing for no data.

        Raises `LocalProtocolError` when the nonces would run out; nothing was encrypted then.
        """
        plain = memoryview(data)
        frames = -(-len(plain) // MAX_PLAINTEXT)
        if self._sent + frames > MAX_NONCE:
            raise LocalProtocolError("this connection has used up its nonces")
        out = bytearray(len(plain) + frames * (HEADER + TAG))
        view = memoryview(out)
        at = 0
        for start in range(0, len(plain), MAX_PLAINTEXT):
            chunk = plain[start : start + MAX_PLAINTEXT]
            size = len(chunk) + TAG
            LENGTH.pack_into(out, at, size)
            at += HEADER
            _encrypt_into(self._seal, _NONCE.pack(self._sent), chunk, view[at : at + size])
            self._sent += 1
            at += size
        return out

    def receive_data(self, data: Data) -> bytearray:
        """The plaintext of all frames that `data` completes; the rest waits for more.

        May be empty without being the end: part of a frame, or frames without content.
        Raises `AuthenticationFailed` for a frame that is not the peer's next one, and ever after;
        `RemoteProtocolError` for an impossible length or more frames than nonces.
        """
        if self._failed:
            raise AuthenticationFailed("this connection failed before")
        try:
            return self._decrypt(self._whole_frames(memoryview(data)))
        except RemoteProtocolError:
            self._failed = True
            self._partial.clear()
            raise

    def _whole_frames(self, data: memoryview) -> list[memoryview]:
        """The sealed bodies of the frames that `data` completes."""
        frames: list[memoryview] = []
        if self._partial:
            data = data[self._fill(data, HEADER) :]
            if len(self._partial) >= HEADER:
                data = data[self._fill(data, HEADER + _body_size(self._partial, 0)) :]
                if len(self._partial) == HEADER + _body_size(self._partial, 0):
                    frames.append(memoryview(self._partial)[HEADER:])
                    self._partial = bytearray()
            if not frames:
                return frames
        at = 0
        while len(data) - at >= HEADER:
            end = at + HEADER + _body_size(data, at)
            if end > len(data):
                break
            frames.append(data[at + HEADER : end])
            at = end
        self._partial += data[at:]
        return frames

    def _fill(self, data: memoryview, size: int) -> int:
        """Makes the partial frame up to `size` bytes long with the beginning of `data`; how many it took."""
        missing = max(0, size - len(self._partial))
        self._partial += data[:missing]
        return min(missing, len(data))

    def _decrypt(self, frames: list[memoryview]) -> bytearray:
        if self._received + len(frames) > MAX_NONCE:
            raise RemoteProtocolError("the peer has used up its nonces")
        out = bytearray(sum(map(len, frames)) - TAG * len(frames))
        view = memoryview(out)
        at = 0
        for frame in frames:
            size = len(frame) - TAG
            try:
                _decrypt_into(self._open, _NONCE.pack(self._received), frame, view[at : at + size])
            except InvalidTag as exc:
                raise AuthenticationFailed("a noise frame failed authentication") from exc
            self._received += 1
            at += size
        return out


def _body_size(buffer: bytearray | memoryview, at: int) -> int:
    """The length at `at`, in front of a frame. Raises `RemoteProtocolError` when no frame is that short."""
    size: int = LENGTH.unpack_from(buffer, at)[0]
    if size < TAG:
        raise RemoteProtocolError(f"a noise frame of {size} bytes is too short, it has {TAG} or more")
    return size


def _encrypt_copying(aead: ChaCha20Poly1305, nonce: bytes, plain: memoryview, out: memoryview) -> None:
    out[:] = aead.encrypt(nonce, plain, None)


def _decrypt_copying(aead: ChaCha20Poly1305, nonce: bytes, sealed: memoryview, out: memoryview) -> None:
    out[:] = aead.decrypt(nonce, sealed, None)


def _encrypt_in_place(aead: ChaCha20Poly1305, nonce: bytes, plain: memoryview, out: memoryview) -> None:
    aead.encrypt_into(nonce, plain, None, out)


def _decrypt_in_place(aead: ChaCha20Poly1305, nonce: bytes, sealed: memoryview, out: memoryview) -> None:
    aead.decrypt_into(nonce, sealed, None, out)


# Older versions of cryptography can only return new bytes.
_IN_PLACE = hasattr(ChaCha20Poly1305, "decrypt_into")
_encrypt_into = _encrypt_in_place if _IN_PLACE else _encrypt_copying
_decrypt_into = _decrypt_in_place if _IN_PLACE else _decrypt_copying
