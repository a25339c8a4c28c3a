"""Where a process was when it ended, by what `faulthandler` wrote of it."""

from __future__ import annotations

import re
from pathlib import Path

from federated.blame import OURS

MAX_TRACE = 64 * 1024  # bytes of a dump that are looked at; 100 frames have about 10 KiB
_IMPORT = re.compile(r"^<frozen |/importlib/")  # between us and the first line of a module
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in ', re.MULTILINE)


def where(trace: str) -> str:
    """The line of the plugin in the newest dump, as `federated.blame` tells it; "" when there is none.

    That is the innermost line in the file that we called: what hangs in a library hangs for its caller.
    """
    newest = re.split(r"^.*\(most recent call first\):$", trace, flags=re.MULTILINE)[-1]
    frames = [(match[1], match[2]) for match in _FRAME.finditer(newest) if not _IMPORT.search(match[1])]
    inner = len(frames)
    for at, (path, _) in enumerate(frames):
        if Path(path).is_relative_to(OURS):  # we called what is above, which is further in
            inner = at
            break
    above = frames[:inner]
    if not above:
        return ""
    called = above[-1][0]
    line = next(line for path, line in above if path == called)
    return f" ({Path(called).name}, line {line})"
