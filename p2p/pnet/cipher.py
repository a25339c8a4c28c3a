"""XSalsa20: the key stream that a private network puts over each direction of a connection.

It hides and tells members from strangers, no more: nothing is authenticated here, that is the next
layer's work. Salsa20 itself is pycryptodome's, loaded when the first key is used: networks without a
key shall not pay for it. HSalsa20, which it lacks, makes the key that Salsa20 gets from 24-byte nonces.
Source: D. J. Bernstein, "Extending the Salsa20 nonce", 2011; libp2p/specs pnet/Private-Networks-PSK-V1.md.
"""

from __future__ import annotations

from struct import Struct

from p2p.stream import Data

KEY_SIZE = 32  # bytes
NONCE_SIZE = 24  # bytes
_HNONCE = 16  # bytes of the nonce that go into the key
_WORDS = Struct("<8I")
_HALF = Struct("<4I")
_CONSTANTS = _HALF.unpack(b"expand 32-byte k")
_DOUBLE_ROUNDS = 10
# Rows of four words that a quarter round mixes: the columns of the 4x4 matrix, then its rows.
_QUARTERS = (
    (0, 4, 8, 12),
    (5, 9, 13, 1),
    (10, 14, 2, 6),
    (15, 3, 7, 11),
    (0, 1, 2, 3),
    (5, 6, 7, 4),
    (10, 11, 8, 9),
    (15, 12, 13, 14),
)


def hsalsa20(key: bytes, nonce: bytes) -> bytes:
    """A key of 32 bytes from one of 32 and a nonce of 16: the rounds of Salsa20 without the last addition."""
    k, n, c = _WORDS.unpack(key), _HALF.unpack(nonce), _CONSTANTS
    x = [c[0], *k[:4], c[1], *n, c[2], *k[4:], c[3]]
    for _ in range(_DOUBLE_ROUNDS):
        for a, b, c_, d in _QUARTERS:
            x[b] ^= _rotated(x[a] + x[d], 7)
            x[c_] ^= _rotated(x[b] + x[a], 9)
            x[d] ^= _rotated(x[c_] + x[b], 13)
            x[a] ^= _rotated(x[d] + x[c_], 18)
    return _WORDS.pack(x[0], x[5], x[10], x[15], *x[6:10])


def _rotated(total: int, bits: int) -> int:
    """The low 32 bits of `total`, rotated to the left."""
    word = total & 0xFFFFFFFF
    return (word << bits & 0xFFFFFFFF) | word >> (32 - bits)


def salsa20_key_stream(key: bytes, nonce: bytes, size: int) -> bytes:
    """The first `size` bytes of Salsa20's key stream for a nonce of 8 bytes."""
    from Crypto.Cipher import Salsa20  # see the module's docstring

    return Salsa20.new(key=key, nonce=nonce).encrypt(bytes(size))


class XSalsa20:
    """The key stream of one direction; encrypting and decrypting are the same."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        from Crypto.Cipher import Salsa20  # see the module's docstring

        self._stream = Salsa20.new(key=hsalsa20(key, nonce[:_HNONCE]), nonce=nonce[_HNONCE:])
        self._returned = b""  # key stream that was taken and not used

    def apply(self, data: Data) -> bytes:
        """`data` under the next bytes of the key stream."""
        if not self._returned:
            return self._stream.encrypt(data)
        head, rest = data[: len(self._returned)], data[len(self._returned) :]
        key, self._returned = self._returned[: len(head)], self._returned[len(head) :]
        return _xor(head, key) + self._stream.encrypt(rest)

    def apply_in_place(self, buffer: memoryview) -> None:
        """As `apply`, over what is in `buffer`."""
        if self._returned:
            buffer[:] = self.apply(buffer)
        else:
            self._stream.encrypt(buffer, output=buffer)

    def give_back(self, data: Data, applied: Data) -> None:
        """Takes back the key stream between `data` and what `apply` made of it, the end of the last call.

        For what did not leave: the next `apply` goes on where the last byte on the wire ended, whatever
        comes to be sent then. The key stream was not seen by anybody, so nothing is encrypted twice.
        """
        self._returned = _xor(data, applied) + self._returned


def _xor(left: Data, right: Data) -> bytes:
    both = int.from_bytes(left, "little") ^ int.from_bytes(right, "little")
    return both.to_bytes(len(left), "little")
