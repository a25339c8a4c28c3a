"""Runs the handler of one inbound stream: what it raises ends its stream and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from p2p.errors import P2PError
from p2p.stream import MuxedStream

logger = logging.getLogger(__name__)

StreamT = TypeVar("StreamT", bound=MuxedStream)


async def run_handler(stream: StreamT, handler: Callable[[StreamT], Awaitable[None]]) -> None:
    """Awaits `handler(stream)`, then closes it; a failure resets and logs it, a cancellation travels on."""
    try:
        await handler(stream)
        await stream.aclose()
    except Exception as exc:  # a handler is anybody's code: its failure is not the connection's
        _report(stream, exc)
    except BaseExceptionGroup as group:  # the same, from a nursery that was cancelled meanwhile
        cancelled, rest = group.split(trio.Cancelled)
        if cancelled is None or not isinstance(rest, Exception):
            raise
        _report(stream, rest)
        raise cancelled from None


def _report(stream: MuxedStream, error: Exception) -> None:
    stream.reset()
    if isinstance(error, P2PError | trio.TooSlowError):  # the peer's doing, or nobody's
        reason = str(error) or "it took too long"
        logger.info("a stream of %s (%s) ended: %s", stream.peer, stream.protocol, reason)
    else:
        message = "the handler of a stream of %s (%s) failed"
        logger.warning(message, stream.peer, stream.protocol, exc_info=error)
