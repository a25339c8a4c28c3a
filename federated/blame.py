"""Whatever a plugin raises, in one line that names the plugin and its line of code."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from federated.errors import DataError, FederatedError, PluginError

OURS = Path(__file__).parent  # our own code between the call and the plugin
BUILT_IN = OURS.parent / "plugins"


@contextmanager
def blamed(kind: str, name: str) -> Iterator[None]:
    """Turns what a plugin raises into a `PluginError` that names it; our own errors pass.

    A `DataError` names whose line it comes from unless that is ours: then it is about a file or a setting.

    `KeyboardInterrupt` passes, which may be the person's at the terminal, and nothing else: a plugin that
    calls `sys.exit` ends no peer.
    """
    try:
        yield
    except PluginError as exc:
        raise PluginError(f"{kind} {name!r}: {exc}") from exc
    except DataError as exc:
        if not (frames := _frames(exc)) or Path(frames[0].filename).is_relative_to(BUILT_IN):
            raise
        raise DataError(f"{kind} {name!r}: {exc}{_where(exc)}") from exc
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


def _frames(exc: BaseException) -> list[traceback.FrameSummary]:
    """The calls from the plugin's on."""
    frames = list(traceback.extract_tb(exc.__traceback__))
    while frames and Path(frames[0].filename).is_relative_to(OURS):
        del frames[0]
    return frames


def _where(exc: BaseException) -> str:
    """The line of the plugin that an exception came from: the last one in the file that we called."""
    frames = _frames(exc)
    mine = [frame for frame in frames if frame.filename == frames[0].filename]
    return f" ({Path(mine[-1].filename).name}, line {mine[-1].lineno})" if mine else ""
