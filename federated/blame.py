"""Whatever a plugin raises, in one line that names the plugin and its line of code."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from federated.errors import FederatedError, PluginError

OURS = Path(__file__).parent  # our own code between the call and the plugin


@contextmanager
def blamed(kind: str, name: str) -> Iterator[None]:
    """Turns what a plugin raises into a `PluginError` that names it; our own errors pass.

    So does `KeyboardInterrupt`, which may be the person's at the terminal, and nothing else: a plugin that
    calls `sys.exit` ends no peer.
    """
    try:
        yield
    except PluginError as exc:
        raise PluginError(f"{kind} {name!r}: {exc}") from exc
    except (FederatedError, KeyboardInterrupt):
        raise
    except BaseException as exc:  # a stranger's plugin may raise anything
        raise PluginError(f"{kind} {name!r} failed: {told(exc)}") from exc


def told(exc: BaseException) -> str:
    """The error in one line: its type, its first line, and where the plugin raised it."""
    line = (_text(exc).splitlines() or [""])[0]
    return f"{type(exc).__name__}: {line}".rstrip(": ") + _where(exc)


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # it is a stranger's, too
        return ""


def _where(exc: BaseException) -> str:
    """The line of the plugin that an exception came from: the last one in the file that we called."""
    frames = traceback.extract_tb(exc.__traceback__)
    while frames and Path(frames[0].filename).is_relative_to(OURS):
        del frames[0]
    mine = [frame for frame in frames if frame.filename == frames[0].filename]
    return f" ({Path(mine[-1].filename).name}, line {mine[-1].lineno})" if mine else ""
