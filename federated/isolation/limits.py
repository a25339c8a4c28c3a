"""What holds a plugin process, however little of Python still runs in it.

memory     RLIMIT_DATA: what the process may write to and shares with nobody. The address space is left
           alone, of which torch and CUDA reserve far more than they use. What this limit misses, shared
           memory and processes of its own, the peer looks at: `resident`.
the peer   when the peer is gone the kernel ends the whole process group: the read end of a pipe whose
           other end only the peer has signals SIGKILL. (PR_SET_PDEATHSIG looks at the thread that
           started us, and is not inherited.)
the rest   the kernel ends it before others when memory runs out; where it was when it crashes or is
           ended is written to a file, by C code that needs no lock of the interpreter.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import resource
import select
import signal
from contextlib import suppress
from pathlib import Path

SHARE = 4  # of the machine's memory a plugin process may have one part of so many
RESERVE = 32 << 20  # bytes to say with that there was no more memory
CGROUP = Path("/sys/fs/cgroup/memory.max")
OOM_SCORE = Path("/proc/self/oom_score_adj")
OOM_ADJUST = b"500"  # of 1000; proc(5)
DUMP_SIGNAL = signal.SIGUSR1  # writes where the process is


def default_memory() -> int:
    """Bytes that a plugin process may have when nobody says otherwise: a part of what this machine has."""
    import psutil  # a megabyte, for the peer alone

    total = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):  # no control group, or one without a limit: "max"
        total = min(total, int(CGROUP.read_text("ascii")))
    return total // SHARE


def hold_memory(limit: int) -> None:
    """From now on this process gets no more than `limit` bytes."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = limit + RESERVE if hard == resource.RLIM_INFINITY else min(limit + RESERVE, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (min(limit, wanted), wanted))


def release_reserve() -> None:
    """Memory to tell with that there is none."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def end_with(lifeline: int) -> None:
    """Ends this process group when the other end of the pipe `lifeline` is closed, by whatever."""
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(lifeline, 0)  # which hears of the end alone
    if poll.poll(0):
        os.killpg(os.getpgrp(), signal.SIGKILL)  # it was closed before anybody looked


def go_first() -> None:
    """Of all processes the kernel shall end this one when it has no memory left."""
    with suppress(OSError):  # a kernel that does not ask
        OOM_SCORE.write_bytes(OOM_ADJUST)


def leave_traces(trace: int) -> None:
    """Writes to the file `trace` where this process is when it crashes, and at `DUMP_SIGNAL`."""
    faulthandler.enable(trace, all_threads=False)
    faulthandler.register(DUMP_SIGNAL, trace, all_threads=False)


def resident(pid: int) -> int:
    """Bytes of memory that a process and those that it has started are in; 0 when it is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(_resident(member) for member in family)
    except psutil.Error:
        return 0


def _resident(process: object) -> int:
    import psutil

    assert isinstance(process, psutil.Process)
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it ended in between
        return 0
