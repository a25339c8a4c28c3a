"""Bugs that a peer survives: what its code caught and logged with a traceback is told to the observer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from p2p.errors import P2PError

if TYPE_CHECKING:
    from sim.rung import Observer

ROOMS = ("p2p", "federated")
NOBODY = -1  # the node of a failure of which only the log knows


class _Bugs(logging.Handler):
    """Turns records that carry an exception into failures. What other peers do (`P2PError`) is none."""

    def __init__(self, observer: Observer) -> None:
        super().__init__(logging.WARNING)
        self._observer = observer

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`, where the record was made."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, P2PError):
            self._observer.failed(NOBODY, error)


@contextmanager
def reported_bugs(observer: Observer) -> Iterator[None]:
    """Within the body `observer.failed` hears of every bug that the peers' code logs."""
    handler, loggers = _Bugs(observer), [logging.getLogger(room) for room in ROOMS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
