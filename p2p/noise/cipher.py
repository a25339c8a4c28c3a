"""The transport phase of Noise, without I/O: blocks of plaintext into frames and back.

Each direction has its own key and counts its frames from 0; there is no rekeying. Frames go through
cryptography's in-place functions into memory that all connections share, so that none is allocated.
Source: the Noise Protocol Framework, revision 34, "5.1. The CipherState object" and "12.4. The
ChaChaPoly cipher functions"; libp2p/specs noise/README.md, "Wire Format".
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from p2p.errors import AuthenticationFailed, LocalProtocolError, RemoteProtocolError
from p2p.noise.wire import HEADER, LENGTH, MAX_PLAINTEXT, TAG
from p2p.scratch import Scratch
from p2p.stream import Data

MAX_NONCE = (1 << 64) - 1  # reserved and never used; Noise, "5.1. The CipherState object"
_NONCE = Struct("<4xQ")  # 4 zero bytes, then the counter


class Cipher:
    """Both directions of one connection after its handshake: a `SecureChannel`.

    `scratch` is where the results live until the next call that uses it; its own when None.
    """

    ended = False  # Noise has no farewell: the end of the bytes is the end

    def __init__(self, *, send_key: bytes, receive_key: bytes, scratch: Scratch | None = None) -> None:
        self._sealing = ChaCha20Poly1305(send_key)
        self._opening = ChaCha20Poly1305(receive_key)
        self._scratch = Scratch() if scratch is None else scratch
        self._sent = 0  # frames, and so the next nonce
        self._received = 0
        self._partial = bytearray()  # the beginning of one frame, at most HEADER + MAX_MESSAGE - 1 bytes
        self._failed = False

    @property
    def mid_frame(self) -> bool:
        """Whether an unfinished frame is buffered."""
        return bool(self._partial)

    def data_to_send(self) -> bytes:
        """Nothing: Noise answers nothing by itself."""
        return b""

    def seal(self, blocks: Sequence[Data]) -> memoryview:
        """One frame for each of `blocks`, in order and ready to send; good until the next await.

        Raises `LocalProtocolError` for a block over `MAX_PLAINTEXT` bytes, and when the nonces would
        run out; nothing was encrypted then.
        """
        total = 0
        for block in blocks:
            if len(block) > MAX_PLAINTEXT:
                raise LocalProtocolError(f"a block of {len(block)} bytes is over {MAX_PLAINTEXT}")
            total += HEADER + len(block) + TAG
        if self._sent + len(blocks) > MAX_NONCE:
            raise LocalProtocolError("this connection has used up its nonces")
        out = self._scratch.sealed(total)
        at = 0
        for block in blocks:
            body = at + HEADER
            LENGTH.pack_into(out, at, len(block) + TAG)
            at = body + len(block) + TAG
            _encrypt_into(self._sealing, _NONCE.pack(self._sent), block, out[body:at])
            self._sent += 1
        return out

    def open(self, data: Data) -> memoryview:
        """The plaintext of all frames that `data` completes; the rest waits for more.

        May be empty without being the end: part of a frame, or frames without content. It is good
        until the next await. Raises `AuthenticationFailed` for a frame that is not the peer's next
        one, and ever after; `RemoteProtocolError` for an impossible length or more frames than nonces.
        """
        if self._failed:
            raise AuthenticationFailed("this connection failed before")
        try:
            return self._decrypt(self._whole_frames(memoryview(data)))
        except RemoteProtocolError:
            self._failed = True
            self._partial = bytearray()
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
        if at < len(data):
            self._partial += data[at:]
        return frames

    def _fill(self, data: memoryview, size: int) -> int:
        """Makes the partial frame up to `size` bytes long with the beginning of `data`; how many it took."""
        missing = max(0, size - len(self._partial))
        self._partial += data[:missing]
        return min(missing, len(data))

    def _decrypt(self, frames: list[memoryview]) -> memoryview:
        if self._received + len(frames) > MAX_NONCE:
            raise RemoteProtocolError("the peer has used up its nonces")
        out = self._scratch.opened(sum(map(len, frames)) - TAG * len(frames))
        at = 0
        for frame in frames:
            end = at + len(frame) - TAG
            try:
                _decrypt_into(self._opening, _NONCE.pack(self._received), frame, out[at:end])
            except InvalidTag as exc:
                raise AuthenticationFailed("a noise frame failed authentication") from exc
            self._received += 1
            at = end
        return out


def _body_size(buffer: bytearray | memoryview, at: int) -> int:
    """The length at `at`, in front of a frame. Raises `RemoteProtocolError` when no frame is that short."""
    size: int = LENGTH.unpack_from(buffer, at)[0]
    if size < TAG:
        raise RemoteProtocolError(f"a noise frame of {size} bytes is too short, it has {TAG} or more")
    return size


def _encrypt_copying(aead: ChaCha20Poly1305, nonce: bytes, plain: Data, out: memoryview) -> None:
    out[:] = aead.encrypt(nonce, plain, None)


def _decrypt_copying(aead: ChaCha20Poly1305, nonce: bytes, sealed: memoryview, out: memoryview) -> None:
    out[:] = aead.decrypt(nonce, sealed, None)


def _encrypt_in_place(aead: ChaCha20Poly1305, nonce: bytes, plain: Data, out: memoryview) -> None:
    aead.encrypt_into(nonce, plain, None, out)


def _decrypt_in_place(aead: ChaCha20Poly1305, nonce: bytes, sealed: memoryview, out: memoryview) -> None:
    aead.decrypt_into(nonce, sealed, None, out)


# Older versions of cryptography can only return new bytes.
_IN_PLACE = hasattr(ChaCha20Poly1305, "decrypt_into")
_encrypt_into = _encrypt_in_place if _IN_PLACE else _encrypt_copying
_decrypt_into = _decrypt_in_place if _IN_PLACE else _decrypt_copying
