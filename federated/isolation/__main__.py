"""`python -m federated.isolation`: one plugin process, as a peer starts it; see `federated.isolation`."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback

from federated.isolation.limits import end_with, go_first, hold_memory, leave_traces


def main(argv: list[str]) -> None:
    """Serves the peer at the other end of a socket; the arguments are descriptors, and bytes of memory."""
    link, page, lifeline, trace, memory = (int(text) for text in argv)
    for descriptor in (link, page, lifeline, trace):
        os.set_inheritable(descriptor, False)
    end_with(lifeline)
    hold_memory(memory)
    go_first()
    leave_traces(trace)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever interrupts means the peer
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # it goes where the logs go
    from federated.isolation.child import serve  # it imports much, and all of that is held already

    status = 1
    try:
        serve(link, page, memory)
        status = 0
    except BaseException:  # of ours; those of plugins are answers
        traceback.print_exc()
    finally:
        os._exit(status)  # whatever threads a plugin has started


if __name__ == "__main__":
    main(sys.argv[1:])
