"""Cuts the bytes of a connection into frame headers and pieces of bodies, without keeping a body."""

from __future__ import annotations

from collections.abc import Iterator

from p2p.yamux.wire import HEADER_SIZE, FrameType, decode_header

Header = tuple[int, int, int, int]  # type, flags, stream id, length


class FrameReader:
    """Bytes in; headers as tuples and the pieces of their bodies as views out, in order."""

    __slots__ = ("_header", "body_left")

    def __init__(self) -> None:
        self._header = bytearray()  # what came of a header that did not come whole
        self.body_left = 0  # bytes of the body that come next, behind the last piece

    @property
    def mid_frame(self) -> bool:
        """Whether an end here cuts a frame off."""
        return bool(self._header or self.body_left)

    def cut(self, data: memoryview) -> Iterator[Header | memoryview]:
        """The headers and pieces of bodies in `data`. Raises as `decode_header` does."""
        at, end, partial = 0, len(data), self._header
        while at < end:
            if self.body_left:
                piece = data[at : at + self.body_left]
                at += len(piece)
                self.body_left -= len(piece)
                yield piece
            elif not partial and end - at >= HEADER_SIZE:
                header = decode_header(data, at)
                at += HEADER_SIZE
                if header[0] == FrameType.DATA:  # no other frame has a body, whatever its flags
                    self.body_left = header[3]
                yield header
            else:
                piece = data[at : at + HEADER_SIZE - len(partial)]
                at += len(piece)
                partial += piece
                if len(partial) == HEADER_SIZE:
                    header = decode_header(partial)
                    partial.clear()
                    if header[0] == FrameType.DATA:
                        self.body_left = header[3]
                    yield header
