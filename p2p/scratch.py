"""Working memory that all connections of a thread share: bytes pass through it, nothing stays in it.

An idle connection must cost next to nothing, yet large reads and several frames a send are what makes
a stream fast, and fresh memory of that size would be mapped and faulted in by the kernel each time.
So one set of buffers serves everybody: whoever gets a view of one uses it up before the next await.
"""

from __future__ import annotations

RECEIVE_SIZE = 4 * 65537  # bytes; four full noise frames: few system calls, and most frames arrive whole
OPENED_SIZE = RECEIVE_SIZE + 65537  # bytes; what such a read completes, a frame begun before included
SEALED_SIZE = 8 * 65537  # bytes; as many noise frames as one send is worth, after which it is slower again
KEPT_SIZE = 4 << 20  # bytes; freed memory of about twice this stays with the process, and so is warm


class Scratch:
    """The buffers of one thread; the kernel backs only what was ever touched."""

    __slots__ = ("_opened", "_sealed", "received")

    def __init__(self) -> None:
        # What streams hand to their readers is allocated and freed in pieces of 64 KiB. glibc gives such
        # pieces back to the kernel and takes them again all the time, a third of the speed, until it has
        # seen one larger block come and go: mallopt(3), M_MMAP_THRESHOLD. Nobody touches this one.
        bytearray(KEPT_SIZE)
        self.received = memoryview(bytearray(RECEIVE_SIZE))  # ciphertext, as it came
        self._opened = memoryview(bytearray(OPENED_SIZE))
        self._sealed = memoryview(bytearray(SEALED_SIZE))

    def opened(self, size: int) -> memoryview:
        """Room for `size` bytes of plaintext; fresh memory when that is more than usual."""
        return self._opened[:size] if size <= OPENED_SIZE else memoryview(bytearray(size))

    def sealed(self, size: int) -> memoryview:
        """Room for `size` bytes of ciphertext; fresh memory when that is more than usual."""
        return self._sealed[:size] if size <= SEALED_SIZE else memoryview(bytearray(size))
